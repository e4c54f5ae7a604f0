"""`extract` with a Hugging Face folder: regions with their boxes, the encoder's embeddings, where both come from."""

import hashlib
import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_pictures import make_folder
from tower_folders import FOLDERS, change_json, copy_of, golden_of, pictures

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.extraction.picture_encoders import open_encoder


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Two wide pictures without captions, and what the published program makes of the three of `tower_folders`."""
  folder = make_folder(tmp_path_factory.mktemp('photos'), 2, captions=0)
  for number, picture in enumerate(pictures()):
    picture.save(folder / f'golden_{number}.png')
  return folder


@pytest.mark.parametrize('name', ['clip', 'dinov2'])
def test_a_folder_is_an_encoder(name, photos, tmp_path, capsys):
  cli.run(['extract', '--images', str(photos), '--encoder', str(FOLDERS / name), '--output', str(tmp_path)])
  folder, golden = tmp_path / 'own_precomp', golden_of(name)
  cli.run(['check', str(folder)])
  ids = (folder / 'gallery_ids.txt').read_text().split()
  rows = [ids.index(f'golden_{number}') for number in range(3)]
  regions = np.load(folder / 'gallery_ims.npy')
  assert regions.shape == (5, 16, 14)
  patches = golden['states'][:, -16:]
  assert_allclose(regions[rows], patches, atol=2e-3 * np.abs(patches).max())
  if name == 'clip':
    assert_allclose(np.load(folder / 'gallery_embeddings.npy')[rows], golden['embedding'], atol=1e-5)
  else:
    assert not (folder / 'gallery_embeddings.npy').exists()
  boxes = np.load(folder / 'gallery_boxes.npy')[rows]
  assert boxes.shape == (3, 16, 4)
  # The first picture is 48 x 36: its shorter side becomes 23 (26), of the middle 23 x 23 pixels 20 x 20 are patches.
  width, height, left, top = (30, 23, 3, 0) if name == 'clip' else (34, 26, 5, 1)
  outer = [left / width, top / height, (left + 20) / width, (top + 20) / height]
  assert_allclose([*boxes[0, 0, :2], *boxes[0, 15, 2:]], outer, atol=1e-6)
  encoder = json.loads((folder / 'provenance.json').read_text())['encoder']
  assert encoder['encoder'] == name
  assert encoder['weights_sha256'] == hashlib.sha256((FOLDERS / name / 'model.safetensors').read_bytes()).hexdigest()
  assert encoder['preprocessing']['crop'] == [23, 23]
  assert f'pictures through {name}' in capsys.readouterr().err


def test_the_folders_name_is_no_part_of_its_features(tmp_path):
  one = open_encoder(str(FOLDERS / 'siglip'))
  folder = copy_of('siglip', tmp_path).rename(tmp_path / 'other')
  other = open_encoder(str(folder))
  assert (one.name, other.name) == ('siglip', 'other')
  assert one.provenance == other.provenance == json.loads(json.dumps(one.provenance))
  change_json(folder / 'preprocessor_config.json', lambda content: content.update(resample=3))
  assert open_encoder(str(folder)).provenance['preprocessing_sha256'] != one.provenance['preprocessing_sha256']


def test_the_grid_and_sizes_are_told_without_weights_being_used():
  encoder = open_encoder(str(FOLDERS / 'dinov2_with_registers'))
  features = jax.eval_shape(encoder.module.apply, encoder.variables, np.zeros((2, 23, 23, 3), np.float32))
  assert features.patches.shape == (2, *encoder.grid, encoder.feature_size)


def test_what_is_no_folder_is_told(tmp_path):
  with pytest.raises(UserError, match=r'unknown, expected one of efficientnet-lite2, .* or a folder with config.json'):
    open_encoder(str(tmp_path / 'nothing'))
  with pytest.raises(UserError, match=r'config.json: no such file; expected is a Hugging Face folder of one of vit'):
    open_encoder(str(tmp_path))
