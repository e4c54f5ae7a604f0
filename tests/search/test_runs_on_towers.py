"""Runs that begin with a CLIP or SigLIP: frozen on its features, and end to end on pixels."""

import importlib.util
import pathlib
import shutil

import numpy as np
import pytest
import small_pictures
import synthetic
from PIL import Image

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.search.encode import encode
from hrem_jax.search.run_encoder import RunEncoder
from hrem_jax.search.searcher import open_searcher
from hrem_jax.search.tower_encoder import TowerEncoder

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
KINDS = {
  'zero_shot': dict(region_size=14, embedding_size=7),
  'end_to_end': dict(region_size=75, embedding_size=14),
}
TOWERS = {'zero_shot': 'clip', 'end_to_end': 'siglip'}
TEXT = 'a dog and two cats'


@pytest.fixture(scope='module', params=KINDS)
def kind(request):
  return request.param


@pytest.fixture(scope='module')
def world(kind, golden, tmp_path_factory):
  """`tower`, `pictures`, `data` and `run`, whose training has not begun."""
  folder = tmp_path_factory.mktemp(kind)
  tower = shutil.copytree(golden / 'towers' / TOWERS[kind], folder / 'tower')
  small_pictures.make_folder(folder / 'pictures', 9)
  pixels = ['--pixels'] if kind == 'end_to_end' else []
  paths = ['--images', f'{folder}/pictures', '--encoder', str(tower), '--output', f'{folder}/data']
  cli.run(['extract', *paths, '--pictures-size=0', '--dev=0.2', '--test=0.3', *pixels])
  spec = importlib.util.spec_from_file_location(kind, CONFIGS / f'own_pictures_{kind}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.data.update(directory=str(folder / 'data'), cache=str(folder / 'cache'), length_buckets=(11,))
  config.model.update(**KINDS[kind], weights=str(tower))
  config.hrem.update(num_heads=7, interaction='none', image_graph=False, text_graph=False)
  config.model.remat = False
  if pixels:
    config.model.image_weights = str(tower)
  config.training.batch_size = 4
  synthetic.write_run(config, folder / 'run')
  return folder


@pytest.fixture(scope='module')
def searcher(world):
  encode(RunEncoder(world / 'run'), world / 'data', world / 'index', progress=False)
  return open_searcher(world / 'index')


def test_a_picture_finds_itself(searcher, world):
  with Image.open(world / 'pictures/picture_4.jpg') as picture:
    (hit,) = searcher.by_picture(picture, 1)
  assert hit.id == 'picture_4'
  assert hit.score == pytest.approx(1, abs=1e-3)


def test_before_the_training_it_finds_what_the_towers_find(searcher, world, kind, tmp_path):
  hits = searcher.by_text(TEXT)
  tower = TowerEncoder(world / 'tower')
  if kind == 'zero_shot':
    encode(tower, world / 'data', tmp_path / 'index', progress=False)
    assert [hit.id for hit in open_searcher(tmp_path / 'index').by_text(TEXT)] == [hit.id for hit in hits]
  query = tower.texts([TEXT])[0]
  for hit in hits[:3]:
    with Image.open(world / f'pictures/{hit.id}.jpg') as picture:
      assert hit.score == pytest.approx(float(tower.query_picture(picture) @ query), abs=2e-3)


def test_where_its_encoder_of_pictures_is(world, tmp_path):
  """It is the folder that the run began with; where that is gone, `--encoder` says where it is now."""
  moved = pathlib.Path(shutil.copytree(world, tmp_path / 'moved'))
  picture, index = small_pictures.random_picture(1), tmp_path / 'index'
  tower = (world / 'tower').rename(world / 'gone')
  try:
    encode(RunEncoder(moved / 'run'), moved / 'data', index, splits=['test'], progress=False)
    with pytest.raises(UserError, match='does not know the folder of the encoder'):
      open_searcher(index).by_picture(picture)
    command = [
      'encode',
      f'{moved}/run',
      '--data',
      f'{moved}/data',
      '--index',
      str(index),
      '--encoder',
      f'{moved}/tower',
    ]
    cli.run([*command, '--split', 'test'])
    assert np.isfinite([hit.score for hit in open_searcher(index).by_picture(picture)]).all()
  finally:
    tower.rename(world / 'tower')
