"""What people write as a path: `~/` is home, everything else is the name that the file has."""

import pathlib

import pytest

from hrem_jax.errors import UserError
from hrem_jax.paths import local_path, run_folder


@pytest.mark.parametrize('name', ['~p00.jpg', '~root', '~', '~/a', 'a/~b', 'C:\\a', 'a:b', '[v2] run', '-x'])
def test_only_a_tilde_of_its_own_is_home(name, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  expected = {'~': tmp_path, '~/a': tmp_path / 'a'}.get(name, pathlib.Path(name))
  assert local_path(name) == local_path(pathlib.Path(name)) == expected


@pytest.mark.parametrize('address', ['gs://b/f', 's3://b/f', 'http://h/f', 'file:///f', pathlib.Path('gs://b/f')])
def test_an_address_is_no_path(address):
  with pytest.raises(UserError, match='an address, expected a path of this machine'):
    local_path(address)


def test_home_that_nobody_knows(monkeypatch):
  def unknown(path):
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.setattr(pathlib.Path, 'expanduser', unknown)
  with pytest.raises(UserError, match='~/runs: there is no home folder, expected a whole path'):
    local_path('~/runs')
  assert local_path('runs') == pathlib.Path('runs')


def test_a_run_may_lie_in_a_bucket():
  assert str(run_folder('gs://bucket/a/b') / 'c') == 'gs://bucket/a/b/c'
  assert run_folder('runs') == pathlib.Path('runs')
  for address in ('gs://bucket', 'gs://bucket/', 'gs:///a'):
    with pytest.raises(UserError, match='expected gs://BUCKET/FOLDER'):
      run_folder(address)
  with pytest.raises(UserError, match='an address'):
    run_folder('s3://bucket/a')
