"""The user's door to an index: what is nearest to a sentence, a picture, or a picture that is in it."""

import dataclasses
import os
import pathlib
import threading

import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.search.encoders import Encoder, RunEncoder
from hrem_jax.search.exact import nearest
from hrem_jax.search.manifest import MANIFEST, Manifest, Place
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

  def __init__(self, folder: pathlib.Path, encoder: Encoder, snapshot: Snapshot):
    self._folder, self._encoder = folder, encoder
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

  def by_picture(self, picture: Image.Image, count: int = 10) -> list[Hit]:
    """The pictures nearest to a picture of any mode, decoded and upright.

    Raises:
      UserError: It is not known which encoder made the features of the index, or it is not there.
    """
    snapshot = self._newest()
    return self._nearest(snapshot, self._encoder.query_picture(picture, snapshot.manifest.pictures), count)

  def by_id(self, id: str, count: int = 10) -> list[Hit]:
    """The other pictures nearest to one that is in the index.

    Raises:
      UserError: There is no such id.
    """
    snapshot = self._newest()
    query = snapshot.vectors(np.array([self._row(snapshot, id)]))[0]
    hits = self._nearest(snapshot, query, count + 1)
    return [hit for hit in hits if hit.id != id][:count]

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
    rows, scores = nearest(snapshot, query, count)
    return [self._hit(snapshot, int(row), float(score)) for row, score in zip(rows, scores, strict=True)]

  def _hit(self, snapshot: Snapshot, row: int, score: float) -> Hit:
    item, picture = snapshot.item(row), None
    if item['picture'] is not None:
      picture = snapshot.manifest.sources[item['source']].find(self._folder) / item['picture']
    found = picture if picture is not None and picture.is_file() else None
    return Hit(item['id'], score, tuple(item['captions']), found)


def open_searcher(index: str | pathlib.Path) -> Searcher:
  """Opens an index and the encoder that made it.

  Raises:
    UserError: There is no index, it is damaged, or its encoder is not there or another one now.
  """
  folder = pathlib.Path(index).expanduser()
  snapshot = open_snapshot(folder)
  return Searcher(folder, open_index_encoder(folder, snapshot.manifest), snapshot)


def open_index_encoder(folder: pathlib.Path, manifest: Manifest) -> Encoder:
  """The encoder that made an index; UserError where it is not there, or another one now."""
  identity = manifest.encoder['identity']
  where = Place(**manifest.encoder['place']).find(folder)
  encoder = RunEncoder(where, identity['step'])
  check_same_encoder(encoder, manifest, folder)
  return encoder


def check_same_encoder(encoder: Encoder, manifest: Manifest, folder: pathlib.Path) -> None:
  """Raises UserError where an index was made by another encoder."""
  theirs = manifest.encoder['identity']
  if encoder.identity != theirs:
    told = ', '.join(
      f'{key} {theirs.get(key)!r} and not {value!r}'
      for key, value in encoder.identity.items()
      if theirs.get(key) != value
    )
    raise UserError(f'{folder}: made by another encoder than {encoder.folder} is now ({told}): make a new index')
