"""The Python in the documents runs as it stands there; only paths are those of the test."""

import pathlib
import re

import numpy as np
import pytest
import synthetic
from numpy.testing import assert_allclose

import hrem_jax
from hrem_jax.retrieval.export import export

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('docs')
  synthetic.write_data_set(folder / 'data')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  export(folder / 'run', folder / 'exported')
  return folder


def python_of(document: str, folder: pathlib.Path) -> list[str]:
  text = (ROOT / document).read_text('utf-8')
  for theirs, ours in (('runs/f30k_bert', 'run'), ('runs/demo', 'run'), ('exported', 'exported')):
    text = text.replace(f"'{theirs}", f"'{folder / ours}")
  text = text.replace("'data/f30k_precomp'", repr(str(folder / 'data' / 'tiny_precomp')))
  return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


@pytest.fixture
def inputs():
  rng = np.random.default_rng(0)
  return {
    'regions': rng.normal(size=(5, synthetic.NUM_REGIONS, synthetic.REGION_SIZE)).astype(np.float32),
    'mask': np.ones((5, synthetic.NUM_REGIONS), bool),
  }


def test_the_readmes_matcher(folder, inputs):
  (code,) = python_of('README.md', folder)
  exec(code, inputs)
  assert inputs['similarity'].shape == (5, 2)
  assert 0 < inputs['metrics']['rsum'] < 600


def test_plain_orbax_and_the_export(folder, inputs):
  with_orbax, with_safetensors = python_of('docs/checkpoints.md', folder)
  exec(with_orbax, inputs)
  assert_allclose(inputs['images'], hrem_jax.restore(folder / 'run').encode_images(inputs['regions']), atol=1e-5)
  exec(with_safetensors, inputs)
  projection = inputs['state']['params']['image_encoder']['projection']['linear']['kernel']
  np.testing.assert_array_equal(inputs['kernel'], projection)
  assert inputs['sizes']['embedding_size'] == 32
