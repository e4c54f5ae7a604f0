"""Shapes in the signatures of `ops` and `methods` are checked while testing; in production they cost nothing."""

import os
import pathlib

# Most of the tests' time is XLA's: equal programs are compiled once, here and in the processes that tests start.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
# LLVM's passes over programs that run for milliseconds; XLA's own (fusion, memory, collectives) are those of users.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import jaxtyping
import numpy as np
import pytest
import synthetic
from absl import flags

jaxtyping.install_import_hook(['hrem_jax.ops', 'hrem_jax.methods'], 'beartype.beartype')
synthetic.compile_less()
flags.FLAGS.mark_as_parsed()  # grain reads flags, and tests have no absl.app.run


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Numbers from the authors' program (see tests/golden/README.md)."""
  return pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(params=[np.float32, np.float64], ids=['float32', 'x64'])
def dtype(request):
  """Both precisions; float64 is switched on while the test runs."""
  with jax.enable_x64(request.param is np.float64):
    yield request.param


@pytest.fixture
def x64():
  """Float64 while the test runs: for finite differences."""
  with jax.enable_x64(True):
    yield
