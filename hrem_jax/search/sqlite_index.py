"""An index in one file of SQLite: the default.

Whatever is read is verified: each block of embeddings and each picture's row have a checksum, and the state has one of
all blocks together, so that what is missing is noticed, too. Embeddings are read once per process; after a change only
the blocks that are new.
"""

import contextlib
import json
import pathlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from hrem_jax.errors import say
from hrem_jax.search import approximate, exact
from hrem_jax.search.blocks import Block, Snapshot, folded
from hrem_jax.search.database import close, connect, open_to_write, told, transaction
from hrem_jax.search.index import About, BrokenIndex, Found, Item, State, UnknownPicture, Where, check_added
from hrem_jax.search.sqlite_rows import COLUMNS, Change, Kept, check_there, checked, read_block, read_row, read_state
from hrem_jax.search.words import Text, Words

Answer = TypeVar('Answer')


class SqliteIndex:
  """See `hrem_jax.search.index.Index`."""

  backends = ('exact', 'faiss', 'usearch')

  def __init__(self, path: pathlib.Path):
    self.path, self.address = path, str(path)
    self._snapshot, self._loading = Snapshot(None, []), threading.Lock()
    self._graphs: dict[str, approximate.Graph] = {}
    self._words, self._asking = None, threading.Lock()
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

  def nearest(
    self, queries: Float[np.ndarray, 'q d'], count: int, *, backend: str = 'exact', where: Where | None = None
  ) -> list[Found]:
    if backend != 'exact' and backend not in self._graphs:
      self.prepare(backend)
    find = exact.nearest if backend == 'exact' else self._graphs[backend].nearest
    with self._reading() as (db, state):
      snapshot = self._newest(db, state)
      among = None
      if where:
        ids = self._with_words(db, state, lambda words: words.ids(where))
        among = np.array([name in ids for name in snapshot.ids], bool)
      rows, scores = find(snapshot, queries, count, among)
      return [Found(self._item(db, snapshot.ids[row]), float(score)) for row, score in zip(rows, scores, strict=True)]

  def words(self, text: str, count: int, *, where: Where | None = None) -> list[Found]:
    with self._reading() as (db, state):
      best = self._with_words(db, state, lambda words: words.best(text, count, where))
      return [Found(self._item(db, name), score) for name, score in best]

  def _with_words(self, db: sqlite3.Connection, state: Kept, ask: Callable[[Words], Answer]) -> Answer:
    """Asks the full text of a state."""

    def checksums() -> dict[int, bytes]:
      found = dict(db.execute('SELECT row, checksum FROM pictures'))
      if len(found) != state.pictures:
        raise sqlite3.DatabaseError('pictures are missing or there twice')
      return found

    def read(number: int) -> Text:
      row = checked(db.execute(f'SELECT {COLUMNS}, checksum FROM pictures WHERE row = ?', (number,)).fetchone())
      return Text(row[0], json.loads(row[1]), row[2])

    with self._asking:
      path = self.derived / 'words'
      self._words = self._words or Words(path)
      if self._words.refresh((state.version, state.checksums), checksums, read):
        self._words.keep()
        if self.state().version != state.version:  # somebody may have forgotten what was written just now
          path.unlink(missing_ok=True)
      return ask(self._words)

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
      found = [row for name in ids if (row := read_row(db, name)) is not None]
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
        rows = sorted(checked(row)[0] for row in db.execute(f'SELECT {COLUMNS}, checksum FROM pictures'))
        return problems + ([] if rows == ids else [f'{self.path}: the index is damaged: pictures without embeddings'])
    except BrokenIndex as error:
      return [str(error)]

  def snapshot(self) -> Snapshot:
    """All embeddings of the newest state."""
    with self._reading() as (db, state):
      return self._newest(db, state)

  def _newest(self, db: sqlite3.Connection, state: Kept) -> Snapshot:
    with self._loading:
      if self._snapshot.key != (state.version, state.checksums):
        blocks = self._read_blocks(db, state, self._snapshot.blocks)
        self._snapshot = Snapshot((state.version, state.checksums), blocks)
      return self._snapshot

  def _read_blocks(self, db: sqlite3.Connection, state: Kept, known: dict[int, Block]) -> list[Block]:
    """All blocks of a state; those that are known are not read again."""
    blocks = []
    for number, digest in db.execute('SELECT number, checksum FROM blocks').fetchall():
      is_known = number in known and known[number].checksum == digest
      blocks.append(known[number] if is_known else read_block(db, number, state.about))
    names = [name for block in blocks for name in block.ids]
    if folded(block.checksum for block in blocks) != state.checksums or len(set(names)) != state.pictures:
      raise sqlite3.DatabaseError('pictures are missing or there twice')
    return blocks

  def _item(self, db: sqlite3.Connection, name: str) -> Item:
    """A picture that is there."""
    row = read_row(db, name)
    if row is None:
      raise sqlite3.DatabaseError(f'picture {name!r} is not found')
    return Item(row[0], tuple(json.loads(row[1])), row[5], source=row[4], picture=row[3], path=row[2])

  def _row(self, snapshot: Snapshot, name: str) -> int:
    if name not in snapshot.row_of:
      raise UnknownPicture(f'{self.path}: no picture {name!r} in this index')
    return snapshot.row_of[name]

  @contextlib.contextmanager
  def _reading(self) -> Iterator[tuple[sqlite3.Connection, Kept]]:
    """A connection on one state. Each call opens the file: one that was replaced, cut or deleted is noticed."""
    check_there(self.path)
    with told(self.path), contextlib.closing(connect(self.path)) as db, transaction(db, 'DEFERRED'):
      state = read_state(db)
      self._check_same(state)
      yield db, state

  @contextlib.contextmanager
  def _changing(self) -> Iterator['Change']:
    """A change, which has happened when this ends."""
    check_there(self.path)
    with told(self.path):
      if self._writer is None:
        self._writer, self._file = open_to_write(self.path), self.path.stat().st_ino
        if self._writer.execute('PRAGMA journal_mode').fetchone() != ('wal',):
          say(f'{self.path}: on this disk nobody can read the index while it is changed')
      if self.path.stat().st_ino != self._file:
        raise BrokenIndex(f'{self.path}: another file has taken its place; open it again')
      with transaction(self._writer):
        change = Change(self._writer, read_state(self._writer))
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
