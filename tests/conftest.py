"""Shapes in the signatures of `hrem_jax.ops` are checked while testing; in production they cost nothing."""

import pathlib

import jaxtyping
import pytest
from absl import flags

jaxtyping.install_import_hook('hrem_jax.ops', 'beartype.beartype')
flags.FLAGS.mark_as_parsed()  # grain reads flags, and tests have no absl.app.run


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Numbers from the authors' program (see tests/golden/README.md)."""
  return pathlib.Path(__file__).parent / 'golden'
