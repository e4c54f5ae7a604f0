"""What an index is, whatever engine keeps it: pictures with their embeddings, and which are nearest to a query."""

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from hrem_jax.errors import UserError
from hrem_jax.paths import index_address

DTYPES = ('float32', 'float16')
LANCE = '.lance'  # what an address of LanceDB ends in


class BrokenIndex(UserError):
  """The index cannot answer as it is: gone, replaced, damaged, in use by somebody else, or without room to write."""


class UnknownPicture(UserError):
  """There is no picture of this id."""


@dataclasses.dataclass(frozen=True)
class Place:
  """A folder elsewhere, found again where it was from the index, if both were moved or copied together, or at all."""

  path: str  # absolute
  from_index: str  # relative to the folder that the index is in

  @classmethod
  def of(cls, folder: pathlib.Path, address: str) -> 'Place':
    folder = folder.resolve()
    return cls(str(folder), os.path.relpath(folder, folder_of(address) or '/'))

  @property
  def name(self) -> str:
    return pathlib.Path(self.path).name

  def find(self, address: str) -> pathlib.Path:
    """The folder, where it was last known if it is nowhere."""
    around = folder_of(address)
    beside = (around / self.from_index).resolve() if around and self.from_index else None
    return beside if beside and beside.is_dir() else pathlib.Path(self.path)


@dataclasses.dataclass(frozen=True)
class Item:
  """What an index keeps of a picture beside its embedding."""

  id: str
  captions: tuple[str, ...]
  fingerprint: str  # of everything that it was made of
  source: str | None = None  # its data set: a key of `About.sources`
  picture: str | None = None  # a file to show, in there
  path: str | None = None  # where the picture was found once, for people and filters


@dataclasses.dataclass(frozen=True)
class Where:
  """Which pictures come into question.

  Attributes:
    caption: A caption has this in it, whatever the case.
    path: The path where the picture was found once matches this pattern: `*` is anything, `?` one character.
  """

  caption: str | None = None
  path: str | None = None


@dataclasses.dataclass(frozen=True)
class Found:
  item: Item
  score: float  # cosine, or of its words


@dataclasses.dataclass(frozen=True)
class About:
  """What all pictures of an index have in common.

  Attributes:
    id: Of the index; a new one in the same place has another.
    encoder: What made the embeddings: its `identity` and its `place` (see `hrem_jax.search.encoders`).
    pictures: Provenance of the features, `encoder` and `features`; None where nothing is known.
    size: Of an embedding.
    views: Embeddings of each picture.
    dtype: `float32` or `float16`, on disk.
    picture_encoder: The folder of that encoder, if it has one and it was told.
    sources: Data sets that pictures came from, by the absolute path of the first time.
  """

  id: str
  encoder: dict[str, Any]
  pictures: dict[str, Any] | None
  size: int
  views: int = 1
  dtype: str = 'float32'
  picture_encoder: Place | None = None
  sources: dict[str, Place] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> 'About':
    encoder, sources = content['picture_encoder'], content['sources']
    places = {key: Place(**place) for key, place in sources.items()}
    return cls(**{**content, 'picture_encoder': encoder and Place(**encoder), 'sources': places})

  def source(self, key: str) -> Place:
    return self.sources.get(key) or Place(key, '')


@dataclasses.dataclass(frozen=True)
class State:
  """One state of an index: it has another `version` after every change."""

  about: About
  version: int
  pictures: int


class Index(Protocol):
  """An index that is there. Every call sees one whole state, the newest one; a change is whole or did not happen.

  All of it raises `BrokenIndex` where the index cannot be read or changed. It may be used by several threads; several
  processes may read and change it at the same time. A context manager: leaving it ends what a change has begun.

  Attributes:
    address: A file or a URL.
    backends: How it can be searched: `exact`, and approximate ways.
  """

  address: str
  backends: tuple[str, ...]

  def __enter__(self) -> 'Index': ...

  def __exit__(self, *exception: object) -> None: ...

  def state(self) -> State: ...

  def describe(self, about: About) -> None:
    """Changes places; size, views and type stay."""

  def add(self, items: Sequence[Item], vectors: Float[np.ndarray, 'n v d']) -> None:
    """Adds pictures; those with the same ids are replaced. UserError where they are not what `check_added` expects."""

  def delete(self, ids: Sequence[str]) -> list[str]:
    """Deletes pictures and all traces of them on the disk; may be repeated. Returns those that were not there."""

  def nearest(
    self, queries: Float[np.ndarray, 'q d'], count: int, *, backend: str = 'exact', where: Where | None = None
  ) -> list[Found]:
    """The best pictures, best first, equal ones by id; a score is the greatest of any query and embedding."""

  def words(self, text: str, count: int, *, where: Where | None = None) -> list[Found]:
    """The pictures with all words of a text in their captions or names, best first by BM25, equal ones by id; those in
    quotes stand side by side. UserError where there are no words."""

  def item(self, id: str) -> Item:
    """Raises UnknownPicture."""

  def vectors(self, id: str) -> Float[np.ndarray, 'v d']:
    """The embeddings of a picture. Raises UnknownPicture."""

  def ids(self, start: int = 0, count: int | None = None) -> list[str]:
    """Some or all of the ids, sorted."""

  def fingerprints(self, ids: Sequence[str]) -> dict[str, str]:
    """Of those pictures that are there."""

  def prepare(self, backend: str) -> float | None:
    """Makes what an approximate way needs, where it is missing or old; the seconds that it took, None for nothing."""

  def problems(self) -> list[str]:
    """Reads everything; a message for each thing that is not what was written."""


def open_index(address: str | pathlib.Path) -> Index:
  """An index that is there.

  Raises:
    BrokenIndex: There is none, or it cannot be read.
  """
  address = index_address(address)
  if address.endswith(LANCE):
    from hrem_jax.search.lance_index import LanceIndex

    return LanceIndex(address)
  from hrem_jax.search.sqlite_index import SqliteIndex

  return SqliteIndex(pathlib.Path(address))


def create_index(address: str | pathlib.Path, about: About) -> Index:
  """An empty index, or the one that is there already.

  Raises:
    UserError: There is something else.
  """
  address = index_address(address)
  if about.dtype not in DTYPES:
    raise UserError(f'{address}: embeddings in {about.dtype!r}, expected {" or ".join(DTYPES)}')
  if address.endswith(LANCE):
    from hrem_jax.search import lance_rows

    lance_rows.create(address, about)
  else:
    from hrem_jax.search import sqlite_rows

    sqlite_rows.create(pathlib.Path(address), about)
  return open_index(address)


def folder_of(address: str) -> pathlib.Path | None:
  """The folder that an index is in; None where it is in a bucket."""
  return None if '://' in address else pathlib.Path(address).resolve().parent


def check_added(items: Sequence[Item], vectors: np.ndarray, about: About, address: str) -> None:
  """Raises UserError where something could not be found again."""
  expected = (len(items), about.views, about.size)
  if vectors.shape != expected:
    raise UserError(f'{address}: embeddings {vectors.shape}, expected {expected}')
  for name, times in Counter(item.id for item in items).items():
    if not name or '\n' in name or not _is_text(name):
      raise UserError(f'{address}: {name!r} cannot be the id of a picture, expected one line of text')
    if times > 1:
      raise UserError(f'{address}: picture {name!r} comes {times} times')
  for item in items:
    if not all(map(_is_text, filter(None, (item.path, item.picture, item.source)))):
      raise UserError(f'{address}: the name of a file or folder of picture {item.id!r} is not UTF-8')
  norms = np.linalg.norm(np.asarray(vectors, np.float32), axis=2)
  wrong = np.argwhere(~(np.abs(norms - 1) < 0.01))  # NaN is, too
  if len(wrong):
    name = items[wrong[0][0]].id
    raise UserError(f'{address}: the embedding of {name!r} has length {norms[tuple(wrong[0])]}, expected 1')


def _is_text(name: str) -> bool:
  """Whether it can be written as UTF-8; names of files need not be."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True
