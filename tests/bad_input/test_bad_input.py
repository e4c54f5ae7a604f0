"""Each broken input ends in one line, with status 2, and leaves everything as it was."""

import gc
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import pytest
import synthetic

from bad_input import document, refusing, world
from bad_input.table import Case, attempt
from hrem_jax.errors import UserError
from hrem_jax.retrieval.run import step_folders
from hrem_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent.parent
CASES = [case for cases in document.THEMES.values() for case in cases]


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('bad_input') / 'world'
  world.make(folder)
  return folder


@pytest.fixture
def copy(whole, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(whole, tmp_path / 'world'))


def test_there_are_many_and_each_has_its_name():
  assert len(CASES) >= 80
  assert len({case.what for case in CASES}) == len(CASES)


@pytest.mark.filterwarnings('ignore:.*load_module')  # how ml_collections loads a configuration
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.what)
def test_it_ends_in_one_line_and_nothing_has_changed(copy, case: Case):
  outcome = attempt(case, copy)
  assert outcome.status == 2, outcome.errors
  assert outcome.line.startswith('hrem_jax: '), outcome.errors
  assert re.search(case.message, outcome.line), outcome.line
  assert sum(line.startswith('hrem_jax: ') for line in outcome.errors) == 1, outcome.errors
  assert len(outcome.errors) == 1 or case.begun, outcome.errors
  assert 'Traceback' not in '\n'.join(outcome.errors)
  new = {name for name in outcome.after if name not in outcome.before and not name.startswith(case.begun or '\0')}
  assert not new
  assert {name: outcome.after.get(name) for name in outcome.before} == outcome.before


def test_the_document_is_that_of_the_table():
  """Messages may differ in what a library says; `PYTHONPATH=tests:. python -m bad_input.document` writes it anew."""
  rows = document.read(ROOT / 'docs' / 'errors.md')
  assert [row[:2] for row in rows] == [(case.what, document.shown(case)) for case in CASES]
  for (_, _, message), case in zip(rows, CASES, strict=True):
    assert re.search(case.message, message), (case.what, message)


def program(*arguments: str, **options) -> subprocess.CompletedProcess:
  environment = os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1'}
  command = [sys.executable, '-m', *arguments]
  return subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, timeout=300, **options)


@pytest.mark.skipif(not pathlib.Path('/dev/full').exists(), reason='there is no /dev/full')
def test_standard_output_on_a_full_disk():
  with pathlib.Path('/dev/full').open('w') as full:
    result = program('hrem_jax', 'ablate', '--list', stdout=full)
  assert (result.returncode, result.stderr.count('\n')) == (2, 1), result.stderr
  assert result.stderr.startswith('hrem_jax: a file or standard output: No space left on device')


def test_a_checkpoint_without_room_is_not_begun(tmp_path, monkeypatch):
  synthetic.write_data_set(tmp_path)
  usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
  monkeypatch.setattr('hrem_jax.training.checkpoint.shutil.disk_usage', lambda folder: usage)
  message = r'no room for the checkpoint of step 12: expected are [\d,]+ bytes, found 50,000; there is no'
  with pytest.raises(UserError, match=message):
    synthetic.write_run(synthetic.tiny_config(tmp_path), tmp_path / 'run')
  assert list((tmp_path / 'run' / 'checkpoints').iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('unshare'), reason='mount namespaces are of Linux')
def test_a_folder_that_is_mounted_read_only(copy):
  """The quick form refuses Python's calls; here it is the kernel that refuses, also to root and to libraries in C++."""
  if subprocess.run(['unshare', '--mount', 'true'], check=False).returncode:
    pytest.skip('mounting is not allowed')
  expected = {case.what: case for case in CASES if case.under is refusing.read_only}
  command = ['unshare', '--mount', sys.executable, '-m', 'bad_input.mounted', copy]
  environment = os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1'}
  result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  found = [json.loads(line) for line in result.stdout.splitlines()]
  assert [what for what, _, _ in found] == list(expected)
  for what, status, errors in found:
    assert status == 2, errors
    assert re.search(f'^hrem_jax: .*{expected[what].message}', errors[-1]), errors


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    ('export W/run --output W/new', 'new: cannot be written: File too large'),
    ('prepare-demo --output W/new --num-train 1 --num-dev 1 --num-test 1', 'File too large'),
    ('convert-data W/data --output W/new', 'new/.*: cannot be written: '),
  ],
)
def test_of_files_that_may_not_grow_nothing_is_left(copy, command, message):
  outcome = attempt(Case('', command, message, under=refusing.small_files), copy)
  assert outcome.status == 2, outcome.errors
  assert re.search(f'^hrem_jax: .*{message}', outcome.line), outcome.errors
  assert 'Traceback' not in '\n'.join(outcome.errors)
  new = {name: outcome.after[name] for name in outcome.after.keys() - outcome.before.keys()}
  assert set(new.values()) <= {'folder'}
  assert {name: outcome.after.get(name) for name in outcome.before} == outcome.before


def test_what_is_compiled_while_files_may_not_grow_is_not_kept(tmp_path):
  """So no test depends on whether its programs were compiled before, or fast."""
  kept = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  try:
    jax.jit(lambda x: x + 1)(1.0)  # the cache has begun
    with refusing.small_files(tmp_path, 10):
      new = jax.jit(lambda x: x * float(time.time_ns()))(1.0)  # warns, which is an error, where it is written
  finally:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', kept)
  assert new > 0


# Coroutines of Orbax that never ran are found by whichever collection of garbage comes first.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('most', [500, 20_000])
def test_a_disk_that_fills_in_the_middle_of_a_checkpoint(copy, tmp_path, monkeypatch, capfd, most):
  """Orbax's threads, of which each would print a page, are silent; the checkpoint before stays."""
  config = synthetic.tiny_config(copy / 'data')
  config.data.cache = str(tmp_path / 'cache')

  def save(checkpoints, *arguments, save=Checkpoints.save):
    with refusing.small_files(copy, most):
      save(checkpoints, *arguments)
      checkpoints.wait()

  monkeypatch.setattr(Checkpoints, 'save', save)
  message = 'checkpoints: a checkpoint cannot be written: File too large; expected are files that this user may write'
  with pytest.raises(UserError, match=message):
    synthetic.write_run(config, tmp_path / 'run')
  gc.collect()  # what asyncio finds out only then
  assert capfd.readouterr().err == ''
  assert step_folders(tmp_path / 'run' / 'checkpoints') == []
