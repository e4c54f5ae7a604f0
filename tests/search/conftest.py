"""Pictures, what `extract` made of them, and a run with random parameters on it: everything but training."""

import pathlib

import pytest
import small_pictures
import synthetic

from hrem_jax import cli


@pytest.fixture(scope='session')
def world(tmp_path_factory) -> pathlib.Path:
  """`pictures`, `data/own_precomp` and `run`; for reading only."""
  folder = tmp_path_factory.mktemp('search')
  small_pictures.make_folder(folder / 'pictures', 12)
  small_pictures.make_folder(folder / 'pictures', 4, captions=0, first=50)
  extract = f'extract --images {folder}/pictures --encoder patches --output {folder}/data --dev 0.2 --test 0.2'
  cli.run(extract.split())
  config = synthetic.tiny_config(folder / 'data')
  config.data.name, config.model.region_size, config.training.batch_size = 'own', 192, 6
  synthetic.write_run(config, folder / 'run')
  return folder
