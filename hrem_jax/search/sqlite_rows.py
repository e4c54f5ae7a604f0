"""What stands in the file of an index: a state, pictures, blocks of embeddings; all read under their checksums."""

import contextlib
import dataclasses
import json
import pathlib
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrem_jax.errors import UserError
from hrem_jax.search.blocks import Block, checksum, folded, num_in_a_block
from hrem_jax.search.database import connect, told, transaction
from hrem_jax.search.index import About, BrokenIndex, Item, State

FORMAT, APPLICATION = 2, 0x4852454D
_SCHEMA = (
  'CREATE TABLE state (content TEXT NOT NULL, checksum BLOB NOT NULL)',
  'CREATE TABLE pictures (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, captions TEXT NOT NULL, path TEXT, '
  'picture TEXT, source TEXT, fingerprint TEXT NOT NULL, block INTEGER NOT NULL, checksum BLOB NOT NULL)',
  'CREATE TABLE blocks (number INTEGER PRIMARY KEY, checksum BLOB NOT NULL, ids TEXT NOT NULL, vectors BLOB NOT NULL)',
)
COLUMNS = 'id, captions, path, picture, source, fingerprint, block'


@dataclasses.dataclass(frozen=True)
class Kept(State):
  """A state with what stands in the file."""

  checksums: int  # of all blocks, folded


class Change:
  """One transaction."""

  def __init__(self, db: sqlite3.Connection, state: Kept):
    self.db, self.state, self.about = db, state, state.about
    self._pictures, self._checksums = state.pictures, state.checksums

  def remove(self, ids: Sequence[str]) -> set[str]:
    """Returns those that were there."""
    block_of = {row[0]: row[6] for name in set(ids) if (row := read_row(self.db, name)) is not None}
    for number in set(block_of.values()):
      block = read_block(self.db, number, self.about)
      self._replace(block, number, *block.without(set(block_of)))
    self.db.executemany('DELETE FROM pictures WHERE id = ?', [(name,) for name in block_of])
    return set(block_of)

  def append(self, items: Sequence[Item], vectors: np.ndarray) -> None:
    """Fills the last block, then new ones."""
    room = num_in_a_block(vectors)
    (number,) = self.db.execute('SELECT max(number) FROM blocks').fetchone()
    last = None if number is None else read_block(self.db, number, self.about)
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
    write_state(self.db, Kept(self.about, self.state.version + 1, self._pictures, self._checksums))

  def _insert(self, items: Sequence[Item], block: int) -> None:
    rows = [
      (item.id, json.dumps(item.captions), item.path, item.picture, item.source, item.fingerprint, block)
      for item in items
    ]
    marks = ', '.join('?' * 8)
    rows = [(*row, checksum(row)) for row in rows]
    self.db.executemany(f'INSERT INTO pictures ({COLUMNS}, checksum) VALUES ({marks})', rows)

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
        write_state(db, Kept(about, 0, 0, 0))
  except UserError as error:
    if is_new and path.exists() and not path.stat().st_size:
      path.unlink()
    if isinstance(error.__cause__, sqlite3.DatabaseError) and 'not a database' in str(error):
      raise UserError(f'{path}: exists already and is no index; expected is an index or a new file') from error
    raise


def check_there(path: pathlib.Path) -> None:
  _check_no_folder(path)
  if not path.is_file():
    raise BrokenIndex(f'{path}: no index there; `python -m hrem_jax encode` makes one')


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


def write_state(db: sqlite3.Connection, state: Kept) -> None:
  content = json.dumps(dataclasses.asdict(state))
  db.execute('DELETE FROM state')
  db.execute('INSERT INTO state VALUES (?, ?)', (content, checksum([content])))


def read_state(db: sqlite3.Connection) -> Kept:
  (application,), (version,) = (db.execute(f'PRAGMA {name}').fetchone() for name in ('application_id', 'user_version'))
  if application != APPLICATION:
    raise sqlite3.DatabaseError('this file is no index')
  if version != FORMAT:
    raise sqlite3.DatabaseError(f'format {version}, expected {FORMAT}')
  rows = db.execute('SELECT content, checksum FROM state').fetchall()
  if len(rows) != 1 or checksum([rows[0][0]]) != rows[0][1]:
    raise sqlite3.DatabaseError('its state is not what was written')
  content = json.loads(rows[0][0])
  return Kept(**{**content, 'about': About.from_json(content['about'])})


def read_block(db: sqlite3.Connection, number: int, about: About) -> Block:
  row = db.execute('SELECT checksum, ids, vectors FROM blocks WHERE number = ?', (number,)).fetchone()
  digest, ids, vectors = row or (None, None, None)
  if not isinstance(ids, str) or not isinstance(vectors, bytes):
    raise sqlite3.DatabaseError(f'block {number} is not found')
  ids = ids.split('\n')
  if checksum([number, *ids], vectors) != digest:
    raise sqlite3.DatabaseError(f'the embeddings of block {number} are not what was written')
  return Block(number, digest, ids, np.frombuffer(vectors, about.dtype).reshape(len(ids), about.views, about.size))


def read_row(db: sqlite3.Connection, name: str) -> tuple[Any, ...] | None:
  """The columns of a picture; None where it is not there."""
  row = db.execute(f'SELECT {COLUMNS}, checksum FROM pictures WHERE id = ?', (name,)).fetchone()
  if row is None:
    return None
  if row[0] != name:
    raise sqlite3.DatabaseError(f'picture {name!r} is not found')
  return checked(row)


def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
  if checksum(row[:-1]) != row[-1]:
    raise sqlite3.DatabaseError(f'what is known of picture {row[0]!r} is not what was written')
  return row[:-1]
