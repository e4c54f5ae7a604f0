"""The Python in the documents runs as it stands there; only paths are those of the test."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import synthetic
from numpy.testing import assert_allclose
from small_pictures import random_picture
from tower_folders import FOLDERS, GRID

import hrem_jax
from hrem_jax.retrieval.checksums import write_checksums
from hrem_jax.retrieval.export import export

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('docs')
  synthetic.write_data_set(folder / 'data')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  # A newer checkpoint, of other parameters, which is not the best.
  other = synthetic.tiny_config(folder / 'data')
  other.training.seed = 1
  synthetic.write_run(other, folder / 'other')
  newer = shutil.copytree(folder / 'other' / 'checkpoints' / '12', folder / 'run' / 'checkpoints' / '14')
  metrics = newer / 'metrics' / 'metrics'
  metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {'rsum': 0.5}))
  write_checksums(newer)
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
  assert inputs['step'] == 12
  assert_allclose(inputs['images'], hrem_jax.restore(folder / 'run').encode_images(inputs['regions']), atol=1e-5)
  exec(with_safetensors, inputs)
  projection = inputs['state']['params']['image_encoder']['projection']['linear']['kernel']
  np.testing.assert_array_equal(inputs['kernel'], projection)
  assert inputs['sizes']['embedding_size'] == 32


def test_the_towers_example(tmp_path):
  for number, name in enumerate(('a.jpg', 'b.jpg', 'c.jpg')):
    random_picture(number).save(tmp_path / name)
  (code,) = python_of('docs/encoders.md', tmp_path)
  code = code.replace("'siglip2-base-patch16-256'", repr(str(FOLDERS / 'siglip')))
  code = code.replace('open(name)', 'open(root / name)')
  values = {'root': tmp_path}
  exec(code, values)
  assert values['regions'].shape == (3, *GRID, 14)
  assert values['similarity'].shape == (3, 2)
  assert np.abs(values['similarity']).max() <= 1 + 1e-6


def test_every_section_that_the_code_cites_is_there():
  files = [path for folder in ('hrem_jax', 'configs', 'tests') for path in (ROOT / folder).rglob('*.py')]
  cited = {
    number
    for path in files
    for numbers in re.findall(r'METHOD sections? ((?:\d(?:, | and )?)+)', path.read_text('utf-8'))
    for number in re.findall(r'\d', numbers)
  }
  sections = set(re.findall(r'^## (\d)\. ', (ROOT / 'docs' / 'method.md').read_text('utf-8'), re.MULTILINE))
  assert {'1', '2', '3', '4', '5', '6', '7'} <= cited <= sections


def test_links_in_the_documents_lead_somewhere():
  documents = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
  links = [
    (document, link)
    for document in documents
    for link in re.findall(r'\]\(([^)#]+)', document.read_text('utf-8'))
    if not link.startswith('https:')
  ]
  assert (ROOT / 'README.md', 'docs/method.md') in links
  assert [link for document, link in links if not (document.parent / link).exists()] == []
