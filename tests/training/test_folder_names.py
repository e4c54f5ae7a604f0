"""A run lies in whatever folder the file system allows; of a name with which checkpoints fail it is said at once."""

import os
import pathlib

import pytest
import synthetic

import hrem_jax
from hrem_jax.errors import UserError
from hrem_jax.retrieval.checkpoint_folder import checkpoint_folder
from hrem_jax.retrieval.checksums import CHECKSUMS, verify
from hrem_jax.retrieval.run import best_step, restore_variables


@pytest.fixture(scope='module')
def config(directory):
  config = synthetic.tiny_config(directory)
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
  return config


@pytest.mark.parametrize('name', ['[v2] run', 'a*b?', '50% #1 {x} | y', 'a%20b', '"it\'s"\n', 'räum:日本', '~x'])
def test_names_that_mean_something_elsewhere(config, directory, name):
  workdir = directory / 'names' / name
  synthetic.write_run(config, workdir)
  assert best_step(workdir) == hrem_jax.restore(workdir).step == 12
  assert (workdir / 'checkpoints/12/state/manifest.ocdbt').is_file()
  (workdir / 'checkpoints/12' / CHECKSUMS).unlink()
  verify(workdir / 'checkpoints/12')  # by its arrays now
  array = max((workdir / 'checkpoints/12/state').rglob('d/*'), key=lambda path: path.stat().st_size)
  array.write_bytes(array.read_bytes()[:100])
  with pytest.raises(UserError, match='not a whole checkpoint'):
    verify(workdir / 'checkpoints/12')


def test_a_name_is_no_pattern_for_other_folders(config, directory):
  """`a?c` would also take what the processes of a training in `abc` wrote."""
  other, workdir = directory / 'abc', directory / 'a?c'
  synthetic.write_run(config, other)
  changed = config.copy_and_resolve_references()
  changed.training.seed = 5
  synthetic.write_run(changed, workdir)
  ours, theirs = (restore_variables(folder, 12)['params'] for folder in (workdir, other))
  assert set(ours) == set(theirs)
  assert str(ours) != str(theirs)


def test_a_folder_beside_a_link(config, directory):
  (directory / 'far/away').mkdir(parents=True)
  (directory / 'link').symlink_to('far/away')
  workdir = directory / 'link' / '..' / 'run'
  synthetic.write_run(config, workdir)
  assert (directory / 'far/run/checkpoints/12/state').is_dir()
  assert not (directory / 'run').exists()
  assert best_step(workdir) == 12


@pytest.mark.parametrize('name', ['a\\b', os.fsdecode(b'a\xff'), 'gs:', 'logs:', 's3:'])
def test_names_that_tensorstore_or_orbax_change(name, tmp_path):
  with pytest.raises(UserError, match='checkpoints cannot be kept in a folder with .* in its name'):
    checkpoint_folder(tmp_path / name / 'run')
  assert checkpoint_folder(pathlib.Path('runs')) == pathlib.Path.cwd() / 'runs' / 'checkpoints'
