"""A data set into an index: everything that the command `encode` does."""

import dataclasses
import functools
import pathlib
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from hrem_jax.data.provenance import FEATURE_KEYS, differences
from hrem_jax.errors import UserError
from hrem_jax.search.data_pictures import DataPictures, find_data_set, read_pictures, split_names
from hrem_jax.search.encoders import Encoder, check_same_encoder
from hrem_jax.search.index import About, Index, Item, Place, create_index

KEPT = 2048  # pictures that are encoded before they are added: what a stop loses at most
READ = 256  # pictures that are read at a time


@dataclasses.dataclass
class Encoded:
  """What was done."""

  new: int = 0
  replaced: int = 0
  unchanged: int = 0
  total: int = 0  # in the index now


def encode(
  encoder: Encoder,
  data: pathlib.Path,
  index: str | pathlib.Path,
  *,
  splits: Sequence[str] | None = None,
  dtype: str | None = None,
  picture_encoder: pathlib.Path | None = None,
  progress: bool = True,
) -> Encoded:
  """Adds the pictures of a data set to an index, which is made where there is none.

  What is in the index already is not encoded again: the same command goes on after a stop, adds pictures that have
  come, and replaces those that have changed.

  Args:
    encoder: Makes the embeddings.
    data: The data set, or a folder with it.
    index: Address of the index.
    splits: All if None.
    dtype: `float32` or `float16` for a new index; None for float32, or what it has.
    picture_encoder: Folder of the encoder of the pictures, if it is one that is read from a folder: for pictures as
      queries of a run's index.
    progress: Whether to show a bar.

  Raises:
    UserError: The data set is wrong, is not one for this encoder, or the index is another encoder's.
  """
  folder = find_data_set(data, encoder.data_name)
  known = encoder.check_data(folder) or {}
  provenance = {key: known[key] for key in FEATURE_KEYS if key in known} or None
  sets = [read_pictures(folder, split) for split in _chosen(folder, splits)]
  for pictures in sets:  # before anything is made
    encoder.check_pictures(pictures)
  made_by = {'identity': encoder.identity, 'place': dataclasses.asdict(Place.of(encoder.folder, str(index)))}
  about = About(secrets.token_hex(8), made_by, provenance, encoder.size, dtype=dtype or 'float32')
  with create_index(index, about) as opened:
    _check_index(opened, encoder, provenance, dtype, folder)
    its = picture_encoder or encoder.picture_encoder
    places = functools.partial(
      _remember, opened, about, its and Place.of(its, str(index)), Place.of(folder, str(index))
    )
    adding = _Adding(opened, encoder, places)
    with tqdm(total=sum(map(len, sets)), desc='pictures', unit='picture', disable=not progress) as bar:
      for pictures in sets:
        for start in range(0, len(pictures), READ):
          rows = np.arange(start, min(start + READ, len(pictures)))
          adding.take(pictures, rows)
          bar.update(len(rows))
      adding.keep()
    places()  # where nothing was new, too
    adding.result.total = opened.state().pictures
  return adding.result


def _remember(index: Index, found: About, picture_encoder: Place | None, data: Place) -> None:
  """Where things are now: the encoder, that of the pictures (None: as it is known), and a data set that has moved."""
  about = index.state().about
  sources = {
    key: data if place.name == data.name and not place.find(index.address).is_dir() else place
    for key, place in about.sources.items()
  }
  new = dataclasses.replace(
    about,
    encoder=about.encoder | {'place': found.encoder['place']},
    picture_encoder=picture_encoder or about.picture_encoder,
    sources=sources | {data.path: data},
  )
  if new != about:
    index.describe(new)


class _Adding:
  """Gathers what is not in the index as it is, and adds it some thousand pictures at a time."""

  def __init__(self, index: Index, encoder: Encoder, remember_places: Callable[[], None]):
    self._index, self._encoder, self._remember_places, self.result = index, encoder, remember_places, Encoded()
    self._taken: dict[str, tuple[str, str]] = {}  # id to fingerprint and split, of this data set
    self._items: list[Item] = []
    self._embeddings: list[np.ndarray] = []

  def take(self, pictures: DataPictures, rows: np.ndarray) -> None:
    content = self._encoder.content(pictures, rows)
    items = [pictures.item(int(row), [array[i] for array in content]) for i, row in enumerate(rows)]
    known = self._index.fingerprints([item.id for item in items])
    wanted = [i for i, item in enumerate(items) if self._is_wanted(item, pictures.split.name, known.get(item.id))]
    if not wanted:
      return
    self._embeddings.append(self._encoder.pictures([array[wanted] for array in content]))
    self._items += [items[i] for i in wanted]
    if len(self._items) >= KEPT:
      self.keep()

  def keep(self) -> None:
    """What was gathered is in the index when this returns."""
    if self._items:
      self._remember_places()  # first: what refers to them is in the index if this is stopped
      self._index.add(self._items, np.concatenate(self._embeddings)[:, None])
      self._items, self._embeddings = [], []

  def _is_wanted(self, item: Item, split: str, known: str | None) -> bool:
    if item.id in self._taken:
      earlier, its_split = self._taken[item.id]
      if earlier != item.fingerprint:
        raise UserError(f'{item.source}: {its_split} and {split} have different pictures with the id {item.id!r}')
      return False  # the same picture in two splits
    self._taken[item.id] = item.fingerprint, split
    self.result.new += known is None
    self.result.replaced += known is not None and known != item.fingerprint
    self.result.unchanged += known == item.fingerprint
    return known != item.fingerprint


def _chosen(folder: pathlib.Path, splits: Sequence[str] | None) -> list[str]:
  there = split_names(folder)
  if missing := [split for split in splits or () if split not in there]:
    raise UserError(f'{folder}: no split {missing[0]!r}, there are {", ".join(there) or "none"}')
  if not there:
    raise UserError(f'{folder}: no SPLIT_ims.npy there')
  return list(dict.fromkeys(splits or there))


def _check_index(
  index: Index, encoder: Encoder, provenance: dict | None, dtype: str | None, data: pathlib.Path
) -> None:
  """Raises UserError where pictures of this encoder and data set cannot be compared with those in the index."""
  about = index.state().about
  check_same_encoder(encoder, about, index.address)
  changed = differences(about.pictures or {}, provenance or {})
  if changed:
    raise UserError(
      f'{data}: other features than those of {index.address} ({"; ".join(changed[:3])}): make another index'
    )
  if dtype not in (None, about.dtype):
    raise UserError(f'{index.address}: holds {about.dtype}, not {dtype}: make another index')
