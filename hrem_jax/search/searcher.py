"""The user's door to an index: what is nearest to a sentence, a picture, or a picture that is in it."""

import dataclasses
import os
import pathlib
import threading

import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.errors import UserError, say
from hrem_jax.paths import local_path
from hrem_jax.search import exact
from hrem_jax.search.approximate import open_approximate, open_library
from hrem_jax.search.encoders import Encoder, open_index_encoder
from hrem_jax.search.manifest import MANIFEST
from hrem_jax.search.recall import Nearest, measure_recall
from hrem_jax.search.snapshot import Snapshot, open_snapshot


@dataclasses.dataclass(frozen=True)
class Hit:
  """A picture that was found."""

  id: str
  score: float  # cosine
  captions: tuple[str, ...]  # its own, () where there are none
  picture: pathlib.Path | None  # a file to show, None where there is none


class Searcher:
  """An index with the encoder that made it; of `open_searcher`. Safe to use from several threads.

  Every call looks at one whole state of the index, the newest one: what a writer adds is found without opening anew.
  """

  def __init__(self, folder: pathlib.Path, encoder: Encoder, snapshot: Snapshot, nearest: Nearest = exact.nearest):
    self._folder, self._encoder, self._find = folder, encoder, nearest
    self._snapshot, self._seen, self._lock = snapshot, None, threading.Lock()
    self._index_id = snapshot.manifest.id

  def __len__(self) -> int:
    """Pictures in it."""
    return len(self._newest())

  def ids(self, start: int = 0, count: int = 50) -> list[str]:
    """Some of the ids, which are sorted."""
    return self._newest().ids[max(start, 0) : max(start, 0) + max(count, 0)]

  def item(self, id: str) -> Hit:
    """A picture, with score 1.

    Raises:
      UserError: There is no such id.
    """
    snapshot = self._newest()
    return self._hit(snapshot, self._row(snapshot, id), 1.0)

  def by_text(self, text: str, count: int = 10) -> list[Hit]:
    """The pictures nearest to a sentence, best first; equal ones by id.

    Raises:
      UserError: It has no words, or none that the encoder knows.
    """
    if not text.strip():
      raise UserError('a query without words: expected is a sentence')
    return self._nearest(self._newest(), self._encoder.texts([text])[0], count)

  def unknown_words(self, text: str) -> list[str]:
    """Words of a sentence that the model has not learnt: `by_text` finds what the others say."""
    return self._encoder.unknown_words(text)

  def by_picture(self, picture: Image.Image, count: int = 10) -> list[Hit]:
    """The pictures nearest to a picture of any mode, decoded and upright.

    Raises:
      UserError: It is not known which encoder made the features of the index, or it is not there.
    """
    return self._nearest(self._newest(), self._encoder.query_picture(picture), count)

  def by_id(self, id: str, count: int = 10) -> list[Hit]:
    """The other pictures nearest to one that is in the index.

    Raises:
      UserError: There is no such id.
    """
    snapshot = self._newest()
    query = snapshot.vectors(np.array([self._row(snapshot, id)]))[0]
    hits = self._nearest(snapshot, query, count + 1)
    return [hit for hit in hits if hit.id != id][:count]

  def recall(self, count: int = 10, num_queries: int = 200) -> tuple[float, str]:
    """Which share of the exactly nearest pictures this searcher finds, and a word for what was looked for."""
    return measure_recall(self._newest(), self._find, self._encoder, count, num_queries)

  def _newest(self) -> Snapshot:
    """The newest state; opened only if the manifest is another file than last time."""
    with self._lock:
      try:
        status = os.stat(self._folder / MANIFEST)
      except OSError as error:
        raise UserError(f'{self._folder / MANIFEST}: {error.strerror}; the index is gone') from error
      seen = (status.st_mtime_ns, status.st_ino, status.st_size)
      if seen != self._seen:
        snapshot = open_snapshot(self._folder)
        if snapshot.manifest.id != self._index_id:
          raise UserError(f'{self._folder}: another index has taken its place; open it again')
        self._snapshot, self._seen = snapshot, seen
      return self._snapshot

  def _row(self, snapshot: Snapshot, name: str) -> int:
    row = snapshot.row(name)
    if row is None:
      raise UserError(f'{self._folder}: no picture {name!r} in this index')
    return row

  def _nearest(self, snapshot: Snapshot, query: Float[np.ndarray, ' d'], count: int) -> list[Hit]:
    rows, scores = self._find(snapshot, query, count)
    return [self._hit(snapshot, int(row), float(score)) for row, score in zip(rows, scores, strict=True)]

  def _hit(self, snapshot: Snapshot, row: int, score: float) -> Hit:
    item, picture = snapshot.item(row), None
    if item['picture'] is not None:
      picture = snapshot.manifest.sources[item['source']].find(self._folder) / item['picture']
    found = picture if picture is not None and picture.is_file() else None
    return Hit(item['id'], score, tuple(item['captions']), found)


def open_searcher(index: str | pathlib.Path, *, backend: str = 'exact') -> Searcher:
  """Opens an index and the encoder that made it.

  Args:
    index: Its folder.
    backend: `exact`, or the library whose graph is asked: `faiss` or `usearch`. The graph is made where there is none
      or the index has changed much, which takes a while for many pictures; what it finds of the best is told then.

  Raises:
    UserError: There is no index, it is damaged, its encoder is not there or another one now, or the library is not
      installed.
  """
  folder = local_path(index)
  snapshot = open_snapshot(folder)
  if backend == 'exact':
    return Searcher(folder, open_index_encoder(folder, snapshot.manifest), snapshot)
  open_library(backend)  # before an encoder is read for nothing
  encoder = open_index_encoder(folder, snapshot.manifest)
  approximate, is_new = open_approximate(snapshot, backend)
  searcher = Searcher(folder, encoder, snapshot, approximate.nearest)
  if is_new:
    recall, queries = searcher.recall()
    say(f'{folder}: made the graph of {backend}; recall@10 against exact search {recall:.3f} ({queries})')
  return searcher
