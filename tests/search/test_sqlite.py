"""The file of an index under all that can happen to it: flipped bits, stops, full disks, what others do to it."""

import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from bad_input.refusing import small_files
from breaking_index import DAMAGE, replaced
from small_index import (
  SIZE,
  about,
  add,
  assert_same_content,
  content_of,
  found,
  make_content,
  make_index,
  unit_vectors,
)

from hrem_jax.errors import UserError
from hrem_jax.search import blocks, database, sqlite_index, sqlite_rows
from hrem_jax.search.index import BrokenIndex, Item, UnknownPicture, create_index, open_index

IDS = [f'picture number {number}' for number in range(40)]
CONTENT = make_content(IDS, 1)
NEW = make_content([*IDS[3:6], 'new', 'newer'], 2)
QUERY = unit_vectors(9, 1)[0]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(blocks, 'ROOM', SIZE * 4 * 7)


@pytest.fixture
def path(tmp_path):
  return make_index(tmp_path / 'index', CONTENT)


def files_beside(path):
  return sorted(each.name for each in path.parent.iterdir())


def answers(index, names) -> list[object]:
  """What a user can be told; errors that say that the index is broken are as good as the truth."""
  told = []
  asks = [lambda: index.nearest(QUERY[None], 10), index.ids, lambda: index.state().pictures]
  asks += [lambda name=name: (index.item(name), index.vectors(name).tobytes()) for name in (*names, 'nobody')]
  for ask in asks:
    try:
      told.append(ask())
    except UnknownPicture as error:
      told.append(str(error))
    except BrokenIndex as error:
      told.append(None if '\n' not in str(error) else error)
  return told


def test_a_thousand_flipped_bits_one_at_a_time(path):
  """Never a wrong answer, never another exception: not by a reader that opens it, not by one that has read it."""
  whole, names = bytearray(path.read_bytes()), IDS[::9]
  before = open_index(path)
  truth, rng, num_noticed = answers(before, names), np.random.default_rng(0), 0
  used = np.flatnonzero(np.frombuffer(whole, np.uint8))  # most of so small a file is empty
  for number in range(1000):
    flipped = bytearray(whole)
    where = int(rng.choice(used)) if number % 2 else int(rng.integers(len(whole)))
    flipped[where] ^= 1 << int(rng.integers(8))
    path.write_bytes(flipped)
    got = [answers(before, names)]
    try:
      got.append(answers(open_index(path), names))
    except UserError:
      num_noticed += 1
    for told in got:
      assert all(ours in (None, theirs) for ours, theirs in zip(told, truth, strict=True)), where
    num_noticed += None in got[-1]
  assert num_noticed > 100


def test_a_change_of_a_damaged_file_adds_nothing_to_the_damage(path):
  """Whoever adds or deletes verifies what is written again; nothing damaged gets a new checksum."""
  whole, rng = path.read_bytes(), np.random.default_rng(1)
  used = np.flatnonzero(np.frombuffer(whole, np.uint8))
  expected = [CONTENT | NEW, {name: each for name, each in CONTENT.items() if name not in IDS[::5]}]
  for number in range(60):
    flipped = bytearray(whole)
    flipped[int(rng.choice(used))] ^= 1 << int(rng.integers(8))
    path.write_bytes(flipped)
    try:
      with open_index(path) as index:
        if number % 2:
          assert index.delete(IDS[::5]) == []
        else:
          add(index, NEW)
      ours = content_of(open_index(path))
    except BrokenIndex:
      pass
    else:
      assert_same_content(ours, expected[number % 2])
    for leftover in path.parent.glob('index-*'):
      leftover.unlink()


def test_many_flipped_bits(path):
  whole, rng, truth = path.read_bytes(), np.random.default_rng(2), answers(open_index(path), IDS)
  for _ in range(20):
    flipped = np.frombuffer(whole, np.uint8).copy()
    flipped[rng.integers(len(flipped), size=1000)] ^= 1 << rng.integers(8, size=1000).astype(np.uint8)
    path.write_bytes(flipped)
    with pytest.raises(UserError) as error:
      assert answers(open_index(path), IDS) == truth
    assert '\n' not in str(error.value)


def test_check_finds_what_nobody_asked_for(path):
  with sqlite3.connect(path) as db:
    db.execute("UPDATE pictures SET captions = replace(captions, 'about', 'abaut') WHERE id = ?", (IDS[3],))
  db.close()
  assert "picture 'picture number 3' is not what was written" in open_index(path).problems()[0]
  with sqlite3.connect(path) as db:
    db.execute('DELETE FROM pictures WHERE id = ?', (IDS[3],))
  db.close()
  assert 'pictures without embeddings' in open_index(path).problems()[0]
  with pytest.raises(BrokenIndex, match="picture 'picture number 3' is not found"):
    open_index(path).item(IDS[3])
  with sqlite3.connect(path) as db:
    db.execute('DELETE FROM blocks WHERE number = 2')
  db.close()
  with pytest.raises(BrokenIndex, match='pictures are missing'):
    open_index(path).nearest(QUERY[None], 1)


# Stops.


def do_add(path):
  with open_index(path) as index:
    add(index, NEW)


def do_delete(path):
  with open_index(path) as index:
    index.delete(IDS[::5])


def do_create(path):
  make_index(path, CONTENT)


OPERATIONS = {'add': do_add, 'delete': do_delete, 'create': do_create}
AFTER = {
  'add': CONTENT | NEW,
  'delete': {name: each for name, each in CONTENT.items() if name not in IDS[::5]},
  'create': CONTENT,
}


def check_after_stop(path, operation):
  """It is whole, in the old state or the new one; the same again makes it the new one and leaves nothing beside it."""
  if operation != 'create':
    ours = content_of(open_index(path))
    assert_same_content(ours, AFTER[operation] if list(ours) == sorted(AFTER[operation]) else CONTENT)
  OPERATIONS[operation](path)
  index = open_index(path)
  assert not index.problems()
  assert_same_content(content_of(index), AFTER[operation])
  assert files_beside(path) == ['index']
  if operation == 'delete':
    assert_forgotten(path.parent, IDS[::5], CONTENT)


def assert_forgotten(folder, names, content):
  """No file has a trace of them: not of captions, not of embeddings."""
  everything = b''.join(each.read_bytes() for each in folder.rglob('*') if each.is_file())
  for name in names:
    vectors, caption = content[name]
    assert caption.encode() not in everything
    assert vectors.tobytes() not in everything
    assert f'"{name}"'.encode() not in everything


def main(folder: pathlib.Path) -> None:
  """Forks a process for each moment at which it is killed; prints how many were killed."""
  blocks.ROOM = SIZE * 4 * 7
  before, count = make_index(folder / 'index', CONTENT), 0
  for operation in OPERATIONS:
    for kind, step in (('steps', 60), ('bytes', 4096)):
      number, was_killed = 0, True
      while was_killed:
        number += step
        copy = folder / f'{operation}_{kind}_{number}' / 'index'
        copy.parent.mkdir()
        if operation != 'create':
          shutil.copy(before, copy)
        child = os.fork()
        if not child:
          {'steps': kill_after_steps, 'bytes': kill_beyond}[kind](number)
          OPERATIONS[operation](copy)
          os._exit(0)
        was_killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        count += was_killed
        check_after_stop(copy, operation)
        shutil.rmtree(copy.parent)
        step = step if number < 900 else step * 2
  print(count)


def kill_after_steps(number: int) -> None:
  """After so many steps of SQLite's machine."""
  left, real = [number], database.connect

  def count():
    left[0] -= 1
    if not left[0]:
      os.kill(os.getpid(), signal.SIGKILL)

  def connect(*arguments, **options):
    db = real(*arguments, **options)
    db.set_progress_handler(count, 1)
    return db

  database.connect = sqlite_index.connect = sqlite_rows.connect = connect


def kill_beyond(number: int) -> None:
  """When a file gets larger than so many bytes: in the middle of a log, a journal or the index itself."""
  import resource

  signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_process_that_is_killed_at_any_moment(tmp_path):
  tests, root = pathlib.Path(__file__).parent.parent, pathlib.Path(__file__).parents[2]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (tests, tests / 'search', root)))}
  run = subprocess.run(
    [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
  )
  assert run.returncode == 0, run.stderr
  assert int(run.stdout) > 50


@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_disk_that_gets_full(tmp_path, operation):
  """The old state or the new one, an error that says so, and the same again when there is room."""
  path, messages = tmp_path / 'index', []
  for most in range(0, 400_000, 8000):
    for each in tmp_path.iterdir():
      each.unlink()
    if operation != 'create':
      make_index(path, CONTENT)
    try:
      with small_files(tmp_path, most):
        OPERATIONS[operation](path)
    except BrokenIndex as error:
      messages.append(str(error))
      check_after_stop(path, operation)
    else:
      break
  assert len(messages) > 2
  assert all('cannot be read or written' in message for message in messages)
  assert_same_content(content_of(open_index(path)), AFTER[operation])


def test_what_is_forgotten_is_gone_from_the_disk(tmp_path):
  """Whatever has happened before: pages that moved, pictures that were replaced, a reader that has it open."""
  rng, path = np.random.default_rng(0), tmp_path / 'index'
  content = {}
  make_index(path)
  reader = open_index(path)
  for number in range(8):
    new = make_content([f'a picture called {i}' for i in rng.integers(0, 300, 60)], number)
    with open_index(path) as index:
      add(index, new)
    content |= new
  (tmp_path / 'index.derived').mkdir()
  (tmp_path / 'index.derived' / 'faiss.graph').write_bytes(b''.join(v.tobytes() for v, _ in content.values()))
  names = sorted(content)[::3]
  assert reader.state().pictures == len(content)
  with pytest.raises(AssertionError):
    assert_forgotten(tmp_path, names, content)
  with open_index(path) as index:
    index.delete(names)
    assert_forgotten(tmp_path, names, content)
  assert reader.state().pictures == len(content) - len(names)
  assert_forgotten(tmp_path, names, content)
  assert files_beside(path) == ['index']


def test_forgetting_while_somebody_reads(path, monkeypatch):
  """It waits for readers, says what it means if they take too long, and may be repeated."""
  monkeypatch.setattr(database, 'WAIT', 0.1)
  with open_index(path) as index:
    add(index, NEW)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute('BEGIN')
    reader.execute('SELECT * FROM state').fetchall()
    with pytest.raises(BrokenIndex, match='traces of it are left: repeat it|somebody else'):
      index.delete(IDS[::5])
    reader.close()
  with open_index(path) as index:
    assert index.delete(IDS[::5]) == IDS[::5]
  assert_forgotten(path.parent, IDS[::5], CONTENT | NEW)


# Behind its back.


def test_one_plain_file_at_rest(path):
  assert files_beside(path) == ['index']
  assert path.read_bytes()[18:20] == b'\1\1'  # no write-ahead log: it can be read where nothing can be written
  with open_index(path) as index:
    add(index, NEW)
    assert path.read_bytes()[18:20] == b'\2\2'
    assert_same_content(content_of(open_index(path)), CONTENT | NEW)
  assert path.read_bytes()[18:20] == b'\1\1'
  assert files_beside(path) == ['index']


def test_a_disk_without_shared_memory(path, monkeypatch, capsys):
  monkeypatch.setattr('hrem_jax.search.database.is_on_a_network', lambda path: True)
  with open_index(path) as index:
    add(index, NEW)
    add(index, make_content(['more']))
    assert path.read_bytes()[18:20] == b'\1\1'
  assert capsys.readouterr().err.count('nobody can read the index while it is changed') == 1
  assert len(open_index(path).ids()) == 43


@pytest.mark.parametrize(
  ('kind', 'expected'), [('ext4', False), ('nfs4', True), ('cifs', True), ('fuse.sshfs', True), ('overlay', False)]
)
def test_which_disks_are_on_a_network(tmp_path, monkeypatch, kind, expected):
  mounts = f'disk / ext4 rw 0 0\nserver:/a {tmp_path} {kind} rw 0 0\nother {tmp_path}/sub\\040folder nfs rw 0 0\n'
  monkeypatch.setattr(pathlib.Path, 'read_text', lambda self, *_: mounts)
  assert database.is_on_a_network(tmp_path / 'index') == expected
  assert database.is_on_a_network(tmp_path / 'sub folder' / 'index')


def test_only_what_changed_is_read_again(path, monkeypatch):
  index, read, real = open_index(path), [], sqlite_index.read_block
  index.snapshot()
  with open_index(path) as writer:
    add(writer, {IDS[0]: CONTENT[IDS[0]]})
  with monkeypatch.context() as patch:
    patch.setattr(sqlite_index, 'read_block', lambda db, number, about: read.append(number) or real(db, number, about))
    assert found(index, QUERY, 3) == found(index, QUERY, 40)[:3]
  assert sorted(read) == [1, 6]  # where it was, and the last


@pytest.mark.parametrize('damage', DAMAGE)
def test_what_happens_to_a_file_that_is_being_read(path, damage):
  index = open_index(path)
  index.snapshot()
  breaks, message = DAMAGE[damage]
  breaks(path)
  for ask in (index.state, lambda: index.item(IDS[39]), lambda: index.nearest(QUERY[None], 40)):
    with pytest.raises(UserError, match=message):
      ask()


def test_what_happens_to_a_file_that_is_being_written(path):
  with open_index(path) as index:
    add(index, NEW)
    replaced(path)
    with pytest.raises(BrokenIndex, match='another file has taken its place'):
      add(index, NEW)
  assert open_index(path).ids() == ['other']  # as it was put there


def test_files_that_are_no_index(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').write_text('in the way\n')
  (tmp_path / 'empty').touch()
  with sqlite3.connect(tmp_path / 'database') as db:
    db.execute('CREATE TABLE pictures (id)')
  db.close()
  before = {path: path.read_bytes() for path in tmp_path.glob('*') if path.is_file()}
  for name, message in (
    ('folder', 'a folder, and no index'),
    ('file', 'exists already'),
    ('database', 'exists already'),
  ):
    with pytest.raises(UserError, match=f'{name}: {message}'):
      create_index(tmp_path / name, about())
  for name in ('folder', 'file', 'database', 'empty', 'missing'):
    with pytest.raises(UserError, match=f'{name}: .*no'):
      open_index(tmp_path / name)
  assert {path: path.read_bytes() for path in tmp_path.glob('*') if path.is_file()} == before
  assert make_index(tmp_path / 'empty', NEW)
  with pytest.raises(UserError, match="embeddings in 'float64', expected float32 or float16"):
    create_index(tmp_path / 'new', about(dtype='float64'))
  assert not (tmp_path / 'new').exists()


def test_people_can_read_it_with_sqlite(path):
  with sqlite3.connect(path) as db:
    assert db.execute('SELECT captions FROM pictures WHERE id = ?', (IDS[3],)).fetchall() == [
      (f'["about {IDS[3]}, 1"]',)
    ]
  db.close()


def test_building_is_linear(tmp_path, monkeypatch):
  """What an addition reads and writes does not grow with the index."""
  monkeypatch.setattr(blocks, 'ROOM', 2**20)
  steps = []
  with create_index(tmp_path / 'index', about()) as index:
    add(index, NEW)
    index._writer.set_progress_handler(lambda: steps.__setitem__(-1, steps[-1] + 1) or 0, 10)
    for number in range(40):
      steps.append(0)
      vectors = np.tile(unit_vectors(0, 1), (20, 1))[:, None]
      index.add([Item(f'{number:03d} {row}', (), '') for row in range(20)], vectors)
  assert max(steps[30:]) < 1.5 * max(steps[:10])


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]))
