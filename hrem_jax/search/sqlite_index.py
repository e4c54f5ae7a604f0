"""An index in one file of SQLite: the default.

Whatever is read is verified: each block of embeddings and each picture's row have a checksum, and the state has one of
all blocks together, so that what is missing is noticed, too. Embeddings are read once per process; after a change only
the blocks that are new.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hrem_jax.errors import UserError, say
from hrem_jax.search import approximate, exact
from hrem_jax.search.blocks import Block, Snapshot, checksum, folded, num_in_a_block
from hrem_jax.search.database import close, connect, open_to_write, told, transaction
from hrem_jax.search.index import About, BrokenIndex, Found, Item, State, UnknownPicture, check_added

FORMAT, APPLICATION = 2, 0x4852454D
_SCHEMA = (
  'CREATE TABLE state (content TEXT NOT NULL, checksum BLOB NOT NULL)',
  'CREATE TABLE pictures (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, captions TEXT NOT NULL, path TEXT, '
  'picture TEXT, source TEXT, fingerprint TEXT NOT NULL, block INTEGER NOT NULL, checksum BLOB NOT NULL)',
  'CREATE TABLE blocks (number INTEGER PRIMARY KEY, checksum BLOB NOT NULL, ids TEXT NOT NULL, vectors BLOB NOT NULL)',
)
_COLUMNS = 'id, captions, path, picture, source, fingerprint, block'


@dataclasses.dataclass(frozen=True)
class _Kept(State):
  """A state with what stands in the file."""

  checksums: int  # of all blocks, folded


class SqliteIndex:
  """See `hrem_jax.search.index.Index`."""

  backends = ('exact', 'faiss', 'usearch')

  def __init__(self, path: pathlib.Path):
    self.path, self.address = path, str(path)
    self._snapshot, self._loading = Snapshot(None, []), threading.Lock()
    self._graphs: dict[str, approximate.Graph] = {}
    self._writer: sqlite3.Connection | None = None
    with self._reading() as (_, state):
      self._id = state.about.id

  def __enter__(self) -> 'SqliteIndex':
    return self

  def __exit__(self, *exception: object) -> None:
    if self._writer:
      close(self._writer)
      self._writer = None

  @property
  def derived(self) -> pathlib.Path:
    """The folder of what can be made again at any time."""
    return self.path.with_name(f'{self.path.name}.derived')

  def state(self) -> State:
    with self._reading() as (_, state):
      return state

  def describe(self, about: About) -> None:
    with self._changing() as change:
      change.about = about

  def add(self, items: Sequence[Item], vectors: Float[np.ndarray, 'n v d']) -> None:
    if not items:
      return
    with self._changing() as change:
      check_added(items, vectors, change.about, self.address)
      change.remove([item.id for item in items])
      change.append(items, vectors.astype(change.about.dtype))

  def delete(self, ids: Sequence[str]) -> list[str]:
    with self._changing() as change:
      # Whether a picture is there is known for certain only when everything was read.
      there = set(self._newest(change.db, change.state).row_of) & set(ids)
      if change.remove(ids) != there:
        raise sqlite3.DatabaseError('pictures are not found')
    self._erase()
    return [name for name in dict.fromkeys(ids) if name not in there]

  def nearest(self, queries: Float[np.ndarray, 'q d'], count: int, *, backend: str = 'exact') -> list[Found]:
    if backend != 'exact' and backend not in self._graphs:
      self.prepare(backend)
    find = exact.nearest if backend == 'exact' else self._graphs[backend].nearest
    with self._reading() as (db, state):
      snapshot = self._newest(db, state)
      rows, scores = find(snapshot, queries, count)
      return [Found(self._item(db, snapshot.ids[row]), float(score)) for row, score in zip(rows, scores, strict=True)]

  def item(self, id: str) -> Item:
    with self._reading() as (db, state):
      self._row(self._newest(db, state), id)
      return self._item(db, id)

  def vectors(self, id: str) -> Float[np.ndarray, 'v d']:
    snapshot = self.snapshot()
    return snapshot.vectors(np.array([self._row(snapshot, id)]))[0].astype(np.float32)

  def ids(self, start: int = 0, count: int | None = None) -> list[str]:
    return self.snapshot().sorted_ids[start : None if count is None else start + count]

  def fingerprints(self, ids: Sequence[str]) -> dict[str, str]:
    with self._reading() as (db, _):
      found = [row for name in ids if (row := _read_row(db, name)) is not None]
    return {row[0]: row[5] for row in found}

  def prepare(self, backend: str) -> float | None:
    if backend == 'exact':
      return None
    snapshot, path = self.snapshot(), self.derived / f'{backend}.graph'
    graph = approximate.read(path, backend)
    if graph is not None and graph.is_new_enough(snapshot):
      self._graphs[backend] = graph
      return None
    start = time.perf_counter()
    self._graphs[backend] = approximate.build(backend, snapshot, self.state().about.size)
    with contextlib.suppress(OSError):  # where nothing can be written it serves this process
      self._graphs[backend].write(path)
    if not set(snapshot.row_of) <= set(self.snapshot().row_of):  # it was forgotten meanwhile, and not to be kept
      path.unlink(missing_ok=True)
    return time.perf_counter() - start

  def problems(self) -> list[str]:
    try:
      with self._reading() as (db, state):
        problems = [
          f'{self.path}: {line}' for (line,) in db.execute('PRAGMA integrity_check').fetchall() if line != 'ok'
        ]
        ids = Snapshot(None, self._read_blocks(db, state, {})).sorted_ids
        rows = sorted(_checked(row)[0] for row in db.execute(f'SELECT {_COLUMNS}, checksum FROM pictures'))
        return problems + ([] if rows == ids else [f'{self.path}: the index is damaged: pictures without embeddings'])
    except BrokenIndex as error:
      return [str(error)]

  def snapshot(self) -> Snapshot:
    """All embeddings of the newest state."""
    with self._reading() as (db, state):
      return self._newest(db, state)

  def _newest(self, db: sqlite3.Connection, state: _Kept) -> Snapshot:
    with self._loading:
      if self._snapshot.key != (state.version, state.checksums):
        blocks = self._read_blocks(db, state, self._snapshot.blocks)
        self._snapshot = Snapshot((state.version, state.checksums), blocks)
      return self._snapshot

  def _read_blocks(self, db: sqlite3.Connection, state: _Kept, known: dict[int, Block]) -> list[Block]:
    """All blocks of a state; those that are known are not read again."""
    blocks = []
    for number, digest in db.execute('SELECT number, checksum FROM blocks').fetchall():
      is_known = number in known and known[number].checksum == digest
      blocks.append(known[number] if is_known else _read_block(db, number, state.about))
    names = [name for block in blocks for name in block.ids]
    if folded(block.checksum for block in blocks) != state.checksums or len(set(names)) != state.pictures:
      raise sqlite3.DatabaseError('pictures are missing or there twice')
    return blocks

  def _item(self, db: sqlite3.Connection, name: str) -> Item:
    """A picture that is there."""
    row = _read_row(db, name)
    if row is None:
      raise sqlite3.DatabaseError(f'picture {name!r} is not found')
    return Item(row[0], tuple(json.loads(row[1])), row[5], source=row[4], picture=row[3], path=row[2])

  def _row(self, snapshot: Snapshot, name: str) -> int:
    if name not in snapshot.row_of:
      raise UnknownPicture(f'{self.path}: no picture {name!r} in this index')
    return snapshot.row_of[name]

  @contextlib.contextmanager
  def _reading(self) -> Iterator[tuple[sqlite3.Connection, _Kept]]:
    """A connection on one state. Each call opens the file: one that was replaced, cut or deleted is noticed."""
    _check_there(self.path)
    with told(self.path), contextlib.closing(connect(self.path)) as db, transaction(db, 'DEFERRED'):
      state = _read_state(db)
      self._check_same(state)
      yield db, state

  @contextlib.contextmanager
  def _changing(self) -> Iterator['_Change']:
    """A change, which has happened when this ends."""
    _check_there(self.path)
    with told(self.path):
      if self._writer is None:
        self._writer, self._file = open_to_write(self.path), self.path.stat().st_ino
        if self._writer.execute('PRAGMA journal_mode').fetchone() != ('wal',):
          say(f'{self.path}: on this disk nobody can read the index while it is changed')
      if self.path.stat().st_ino != self._file:
        raise BrokenIndex(f'{self.path}: another file has taken its place; open it again')
      with transaction(self._writer):
        change = _Change(self._writer, _read_state(self._writer))
        self._check_same(change.state)
        yield change
        change.end()

  def _check_same(self, state: State) -> None:
    if state.about.id != getattr(self, '_id', state.about.id):
      raise BrokenIndex(f'{self.path}: another index has taken its place; open it again')

  def _erase(self) -> None:
    """Nothing of what was deleted is on the disk any more: not in the file, not in its log, not in what was derived."""
    with told(self.path):
      shutil.rmtree(self.derived, ignore_errors=True)
      if self.derived.exists():
        raise BrokenIndex(f'{self.derived}: cannot be removed; what was deleted may be in it: repeat it when it can be')
      self._writer.execute('VACUUM')
      is_in_use, _, _ = self._writer.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()
      if is_in_use:
        raise BrokenIndex(f'{self.path}: deleted, but others are reading, so traces of it are left: repeat it')


class _Change:
  """One transaction."""

  def __init__(self, db: sqlite3.Connection, state: _Kept):
    self.db, self.state, self.about = db, state, state.about
    self._pictures, self._checksums = state.pictures, state.checksums

  def remove(self, ids: Sequence[str]) -> set[str]:
    """Returns those that were there."""
    block_of = {row[0]: row[6] for name in set(ids) if (row := _read_row(self.db, name)) is not None}
    for number in set(block_of.values()):
      block = _read_block(self.db, number, self.about)
      self._replace(block, number, *block.without(set(block_of)))
    self.db.executemany('DELETE FROM pictures WHERE id = ?', [(name,) for name in block_of])
    return set(block_of)

  def append(self, items: Sequence[Item], vectors: np.ndarray) -> None:
    """Fills the last block, then new ones."""
    room = num_in_a_block(vectors)
    (number,) = self.db.execute('SELECT max(number) FROM blocks').fetchone()
    last = None if number is None else _read_block(self.db, number, self.about)
    if last is None or len(last.ids) >= room:
      last, number = None, (number or 0) + 1
    start = 0
    while start < len(items):
      ids, its = (last.ids, [last.vectors]) if last else ([], [])
      end = start + room - len(ids)
      self._insert(items[start:end], number)
      ids = [*ids, *(item.id for item in items[start:end])]
      self._replace(last, number, ids, np.concatenate([*its, vectors[start:end]]))
      start, number, last = end, number + 1, None

  def end(self) -> None:
    _write_state(self.db, _Kept(self.about, self.state.version + 1, self._pictures, self._checksums))

  def _insert(self, items: Sequence[Item], block: int) -> None:
    rows = [
      (item.id, json.dumps(item.captions), item.path, item.picture, item.source, item.fingerprint, block)
      for item in items
    ]
    marks = ', '.join('?' * 8)
    rows = [(*row, checksum(row)) for row in rows]
    self.db.executemany(f'INSERT INTO pictures ({_COLUMNS}, checksum) VALUES ({marks})', rows)

  def _replace(self, old: Block | None, number: int, ids: Sequence[str], vectors: np.ndarray) -> None:
    self.db.execute('DELETE FROM blocks WHERE number = ?', (number,))
    new = Block.of(number, ids, vectors) if ids else None
    if new:
      values = (number, new.checksum, '\n'.join(ids), new.vectors.data)
      self.db.execute('INSERT INTO blocks VALUES (?, ?, ?, ?)', values)
    self._pictures += len(ids) - (len(old.ids) if old else 0)
    self._checksums ^= folded(block.checksum for block in (old, new) if block)


def create(path: pathlib.Path, about: About) -> None:
  """Makes an empty index, unless there is one. Raises UserError where there is something else."""
  _check_no_folder(path)
  is_new = not path.exists()
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with told(path), contextlib.closing(connect(path, make=True)) as db:
      db.execute('PRAGMA page_size=16384')
      with transaction(db):
        if db.execute('PRAGMA application_id').fetchone() == (APPLICATION,):
          return
        if db.execute('SELECT count(*) FROM sqlite_master').fetchone() != (0,):
          raise UserError(f'{path}: exists already and is no index; expected is an index or a new file')
        for statement in (*_SCHEMA, f'PRAGMA application_id={APPLICATION}', f'PRAGMA user_version={FORMAT}'):
          db.execute(statement)
        _write_state(db, _Kept(about, 0, 0, 0))
  except UserError as error:
    if is_new and path.exists() and not path.stat().st_size:
      path.unlink()
    if isinstance(error.__cause__, sqlite3.DatabaseError) and 'not a database' in str(error):
      raise UserError(f'{path}: exists already and is no index; expected is an index or a new file') from error
    raise


def _check_no_folder(path: pathlib.Path) -> None:
  """Raises UserError where an earlier version has made a folder, or there is another one."""
  try:
    manifest = json.loads((path / 'manifest.json').read_text('utf-8'))
    encoder, sources = manifest['encoder'], [source['path'] for source in manifest['sources']]
    with_what = f'--encoder {encoder["place"]["path"]}'
    with_what = encoder['place']['path'] if encoder['identity']['kind'] == 'run' else with_what
  except (OSError, ValueError, KeyError, TypeError):
    if path.is_dir():
      raise BrokenIndex(f'{path}: a folder, and no index; expected is a file that `encode` has made') from None
    return
  commands = [f'`python -m hrem_jax encode {with_what} --data {data} --index {path}.sqlite`' for data in sources]
  raise UserError(
    f'{path}: an index of an earlier version, a folder of files; a new one is made by '
    f'{" and ".join(commands) or "`python -m hrem_jax encode`"}'
  )


def _check_there(path: pathlib.Path) -> None:
  _check_no_folder(path)
  if not path.is_file():
    raise BrokenIndex(f'{path}: no index there; `python -m hrem_jax encode` makes one')


def _write_state(db: sqlite3.Connection, state: _Kept) -> None:
  content = json.dumps(dataclasses.asdict(state))
  db.execute('DELETE FROM state')
  db.execute('INSERT INTO state VALUES (?, ?)', (content, checksum([content])))


def _read_state(db: sqlite3.Connection) -> _Kept:
  (application,), (version,) = (db.execute(f'PRAGMA {name}').fetchone() for name in ('application_id', 'user_version'))
  if application != APPLICATION:
    raise sqlite3.DatabaseError('this file is no index')
  if version != FORMAT:
    raise sqlite3.DatabaseError(f'format {version}, expected {FORMAT}')
  rows = db.execute('SELECT content, checksum FROM state').fetchall()
  if len(rows) != 1 or checksum([rows[0][0]]) != rows[0][1]:
    raise sqlite3.DatabaseError('its state is not what was written')
  content = json.loads(rows[0][0])
  return _Kept(**{**content, 'about': About.from_json(content['about'])})


def _read_block(db: sqlite3.Connection, number: int, about: About) -> Block:
  row = db.execute('SELECT checksum, ids, vectors FROM blocks WHERE number = ?', (number,)).fetchone()
  digest, ids, vectors = row or (None, None, None)
  if not isinstance(ids, str) or not isinstance(vectors, bytes):
    raise sqlite3.DatabaseError(f'block {number} is not found')
  ids = ids.split('\n')
  if checksum([number, *ids], vectors) != digest:
    raise sqlite3.DatabaseError(f'the embeddings of block {number} are not what was written')
  return Block(number, digest, ids, np.frombuffer(vectors, about.dtype).reshape(len(ids), about.views, about.size))


def _read_row(db: sqlite3.Connection, name: str) -> tuple[Any, ...] | None:
  """The columns of a picture; None where it is not there."""
  row = db.execute(f'SELECT {_COLUMNS}, checksum FROM pictures WHERE id = ?', (name,)).fetchone()
  if row is None:
    return None
  if row[0] != name:
    raise sqlite3.DatabaseError(f'picture {name!r} is not found')
  return _checked(row)


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
  if checksum(row[:-1]) != row[-1]:
    raise sqlite3.DatabaseError(f'what is known of picture {row[0]!r} is not what was written')
  return row[:-1]
