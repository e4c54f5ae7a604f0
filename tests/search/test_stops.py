"""A stop at any moment leaves the old state whole or the new one: every call that changes a file is tried."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from small_index import add as add_content
from small_index import assert_same_content, content_of, make_content, make_index
from unsafe_disk import Stopped, UnsafeDisk

from hrem_jax.search import writer as writers
from hrem_jax.search.snapshot import open_snapshot
from hrem_jax.search.writer import open_writer

IDS = [f'{number:02d}' for number in range(12)]
FIRST, SECOND, THIRD = make_content(IDS[:6], 1), make_content(IDS[6:], 2), make_content(IDS[4:8], 3)
NEW = make_content(['07', '01', 'new', 'newer'], 4)


def start(folder: pathlib.Path) -> pathlib.Path:
  """Three segments, pictures replaced and deleted."""
  make_index(folder, FIRST, SECOND, THIRD)
  with open_writer(folder) as writer:
    writer.delete(['02'])
  return folder


def add(folder):
  with open_writer(folder) as writer:
    add_content(writer, NEW)


def delete(folder):
  with open_writer(folder) as writer:
    writer.delete([name for name in ('03', '09') if writer.snapshot.row(name) is not None])


def delete_much(folder):  # and give back
  with open_writer(folder) as writer:
    writer.delete([name for name in IDS[:5] if writer.snapshot.row(name) is not None])


def create(folder):
  make_index(folder, FIRST)


OPERATIONS = {'add': add, 'delete': delete, 'delete_much': delete_much, 'create': create}


def expected_states(operation: str) -> list[dict]:
  """What may be found after a stop, the newest last."""
  old = {name: each for name, each in (FIRST | SECOND | THIRD).items() if name != '02'}
  without = {'delete': ('03', '09'), 'delete_much': IDS[:5]}
  if operation == 'create':
    return [{}, FIRST]
  if operation == 'add':
    return [old, old | NEW]
  return [old, {name: each for name, each in old.items() if name not in without[operation]}]


def same(ours, theirs) -> bool:
  try:
    assert_same_content(ours, theirs)
  except AssertionError:
    return False
  return True


def check(folder: pathlib.Path, operation: str) -> None:
  """The index is whole, in the old state or the new one; the same again makes it the new one and leaves no garbage."""
  states = expected_states(operation)
  if operation != 'create' or (folder / 'manifest.json').exists():
    snapshot = open_snapshot(folder)
    assert not snapshot.problems()
    assert any(same(content_of(snapshot), state) for state in states)
  OPERATIONS[operation](folder)
  snapshot = open_snapshot(folder)
  assert not snapshot.problems()
  assert_same_content(content_of(snapshot), states[-1])
  manifest = snapshot.manifest
  assert sorted(path.name for path in (folder / 'segments').iterdir()) == [each.name for each in manifest.segments]
  names = {'manifest.json', 'lock', 'segments'} | ({manifest.deleted.name} if manifest.deleted else set())
  assert {path.name for path in folder.iterdir()} == names


def prepared(folder: pathlib.Path, operation: str) -> pathlib.Path:
  return folder if operation == 'create' else start(folder)


@pytest.fixture(autouse=True)
def small_fanout(monkeypatch):
  monkeypatch.setattr(writers, 'FANOUT', 3)  # adding merges segments


@pytest.mark.parametrize('forgets', [False, True], ids=['', 'what was not synced is lost'])
@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_stop_at_any_call(tmp_path, monkeypatch, operation, forgets):
  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', lambda file: None)
    before = prepared(tmp_path / 'before', operation)
    disk = UnsafeDisk(tmp_path, None)
    whole = before if operation == 'create' else shutil.copytree(before, tmp_path / 'whole')
    with disk.mounted():
      OPERATIONS[operation](whole)
    if operation == 'create':
      shutil.rmtree(whole)
    num_calls = len(disk.calls)
    assert num_calls >= 5
    for number in range(1, num_calls + 1):
      folder = tmp_path / f'{number}' / 'index'
      folder.parent.mkdir()
      if operation != 'create':
        shutil.copytree(before, folder)
      disk = UnsafeDisk(folder.parent, number, forgets=forgets)
      with disk.mounted(), pytest.raises(Stopped):
        OPERATIONS[operation](folder)
      disk.forget()
      check(folder, operation)


def test_what_stops_are_tried(tmp_path, monkeypatch):
  """Every kind of call is among them, or nothing would be shown."""
  folder, disk = start(tmp_path / 'index'), UnsafeDisk(tmp_path, None)
  with disk.mounted():
    add(folder)
    delete_much(folder)
  assert {call.split()[0] for call in disk.calls} == {'open', 'write', 'fsync', 'replace', 'mkdir', 'unlink', 'rmdir'}
  assert [call for call in disk.calls if call.startswith('replace')] == ['replace index/manifest.json'] * 3


def test_a_process_that_is_killed_at_any_call(tmp_path):
  """SIGKILL, in processes of their own; the lock of a killed one is free."""
  tests, root = pathlib.Path(__file__).parent.parent, pathlib.Path(__file__).parents[2]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (tests, tests / 'search', root)))}
  run = subprocess.run(
    [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
  )
  assert run.returncode == 0, run.stderr
  assert int(run.stdout) > 60


def main(folder: pathlib.Path) -> None:
  """Forks a process for each call and kills it there; prints how many were killed."""
  import signal

  writers.FANOUT = 3
  before, count = start(folder / 'before'), 0
  for operation in ('add', 'delete', 'delete_much'):
    number, was_killed = 0, True
    while was_killed:
      number += 1
      copy = pathlib.Path(shutil.copytree(before, folder / f'{operation}_{number}'))
      child = os.fork()
      if not child:
        disk = UnsafeDisk(copy, number, stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
        with disk.mounted():
          OPERATIONS[operation](copy)
        os._exit(0)
      status = os.waitpid(child, 0)[1]
      was_killed = os.WIFSIGNALED(status)
      count += was_killed
      check(copy, operation)
  print(count)


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
