"""Pictures by the words of their captions and names, as they stand there: a full-text index beside that of embeddings.

It can be made again at any time, follows what changes, and is kept in one file whose SHA-256 is compared before it is
used. SQLite's FTS5 knows words whatever their case and accents, and ranks by BM25.
"""

import contextlib
import hashlib
import pathlib
import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hrem_jax.errors import UserError
from hrem_jax.files import replacing
from hrem_jax.search.database import transaction
from hrem_jax.search.index import Where

_TABLE = (
  'CREATE VIRTUAL TABLE words USING fts5(captions, name, id UNINDEXED, path UNINDEXED, checksum UNINDEXED, '
  "tokenize = 'unicode61 remove_diacritics 2')"
)


class Text(NamedTuple):
  """What is found by words of a picture."""

  id: str
  captions: Sequence[str]
  path: str | None


class Words:
  """The words of all pictures; for one thread at a time.

  Args:
    path: Where they are kept; where nothing can be written they are made by every process.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._db = sqlite3.connect(':memory:', isolation_level=None, check_same_thread=False)
    self._key: object = None
    try:
      content = path.read_bytes()
      if content[:32] == hashlib.sha256(content[32:]).digest():
        self._db.deserialize(content[32:])
    except OSError:
      pass
    if not self._db.execute('SELECT count(*) FROM sqlite_master').fetchone()[0]:
      self._db.execute(_TABLE)
    self._db.create_function('has', 2, lambda text, part: part in text.casefold(), deterministic=True)

  def refresh(self, key: object, checksums: Callable[[], dict[int, bytes]], read: Callable[[int], Text]) -> bool:
    """Takes over what has changed; whether there was anything.

    Args:
      key: Of the state; nothing is done where it is that of the last time.
      checksums: Of all pictures, by number.
      read: A picture, by number.
    """
    if key == self._key:
      return False
    there, mine = checksums(), dict(self._db.execute('SELECT rowid, checksum FROM words'))
    gone = [(number,) for number, digest in mine.items() if there.get(number) != digest]
    new = [number for number, digest in there.items() if mine.get(number) != digest]
    with transaction(self._db):
      self._db.executemany('DELETE FROM words WHERE rowid = ?', gone)
      self._db.executemany(
        'INSERT INTO words (rowid, captions, name, id, path, checksum) VALUES (?, ?, ?, ?, ?, ?)',
        (
          (number, '\n'.join(text.captions), f'{text.id} {text.path or ""}', text.id, text.path, there[number])
          for number in new
          for text in (read(number),)
        ),
      )
    self._key = key
    return bool(gone or new)

  def keep(self) -> None:
    """Writes them, where that is possible."""
    content = self._db.serialize()
    with contextlib.suppress(OSError):
      self._path.parent.mkdir(exist_ok=True)
      with replacing(self._path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)

  def best(self, text: str, count: int, where: Where | None = None) -> list[tuple[str, float]]:
    """Ids and scores of the pictures with all words of a text in their captions or names; equal ones by id.

    Raises:
      UserError: There are no words in the text.
    """
    parts, values = _conditions(where)
    statement = ' AND '.join(['words MATCH ?', *parts])
    query = f'SELECT id, -bm25(words) AS score FROM words WHERE {statement} ORDER BY score DESC, id LIMIT ?'
    words = ' '.join(f'"{each}"' for each in words_of(text))  # so nothing of them is read as an operator
    return self._db.execute(query, (words, *values, count)).fetchall()

  def ids(self, where: Where) -> set[str]:
    """The pictures that come into question."""
    parts, values = _conditions(where)
    rows = self._db.execute(f'SELECT id FROM words WHERE {" AND ".join(parts) or "1"}', values).fetchall()
    return {name for (name,) in rows}


def _conditions(where: Where | None) -> tuple[list[str], list[str]]:
  parts, values = [], []
  if where and where.caption:
    parts, values = [*parts, 'has(captions, ?)'], [*values, where.caption.casefold()]
  if where and where.path:
    parts, values = (
      [*parts, 'path GLOB ?'],
      [*values, where.path.replace('[', '[[]')],
    )  # which would begin a class of characters
  return parts, values


def words_of(text: str) -> list[str]:
  """Its words; those in quotes stand side by side.

  Raises:
    UserError: There are none.
  """
  found = [phrase or word for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', text)]
  found = [each for each in found if re.search(r'\w', each)]
  if not found:
    raise UserError(f'a query without words: {text[:80]!r}')
  return found


def fused(*rankings: Sequence[str]) -> dict[str, float]:
  """Reciprocal rank fusion (Cormack, Clarke, Buettcher 2009): the sum of 1 / (60 + rank) over the rankings."""
  scores: dict[str, float] = {}
  for ranking in rankings:
    for rank, name in enumerate(ranking, start=1):
      scores[name] = scores.get(name, 0.0) + 1 / (60 + rank)
  return scores
