"""Shapes in the signatures of `hrem_jax.ops` are checked while testing; in production they cost nothing."""

import os
import pathlib

# Most of the tests' time is XLA's: equal programs are compiled once, here and in the processes that tests start.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import jaxtyping
import pytest
from absl import flags

jaxtyping.install_import_hook('hrem_jax.ops', 'beartype.beartype')
flags.FLAGS.mark_as_parsed()  # grain reads flags, and tests have no absl.app.run


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Numbers from the authors' program (see tests/golden/README.md)."""
  return pathlib.Path(__file__).parent / 'golden'
