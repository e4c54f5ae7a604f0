"""The pictures of a data set as an index takes them: features, ids, captions, small pictures."""

import dataclasses
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.captions import image_ids, read_lines
from hrem_jax.data.features import RegionFeatures
from hrem_jax.data.precomputed import GALLERY, SUFFIX, Split, load_split
from hrem_jax.data.sources import precomputed_folders
from hrem_jax.errors import UserError
from hrem_jax.search.index import Item

_ENDINGS = ('.jpg', '.png', '.jpeg')


@dataclasses.dataclass(frozen=True)
class DataPictures:
  """The pictures of one split.

  Attributes:
    folder: Of the data set.
    split: Its features; a gallery's has no captions.
    ids: Unique within the split.
    captions: Of each picture.
  """

  folder: pathlib.Path
  split: Split
  ids: list[str]
  captions: list[tuple[str, ...]]

  def __len__(self) -> int:
    return len(self.ids)

  def item(self, row: int, content: Sequence[np.ndarray]) -> Item:
    """What the index keeps of a picture.

    Args:
      row: Of the split.
      content: All that its embedding is made of.
    """
    digest = hashlib.sha256(json.dumps(self.captions[row]).encode())
    for array in content:
      digest.update(np.ascontiguousarray(array).data)
    picture = _small_picture(self.folder, self.ids[row])
    return Item(self.ids[row], self.captions[row], digest.hexdigest(), str(self.folder.resolve()), picture)


class Rows:
  """Some rows of a split that have been read, as encoders read images."""

  def __init__(
    self,
    regions: Float[np.ndarray, 'i r f'],
    mask: Bool[np.ndarray, 'i r'],
    extras: dict[str, np.ndarray],
  ):
    self._regions, self._mask, self._extras = regions, mask, extras

  def __len__(self) -> int:
    return len(self._regions)

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[np.ndarray, np.ndarray]:
    return self._regions[index], self._mask[index]

  def extra(self, name: str, index: Int[np.ndarray, ' b']) -> np.ndarray:
    return self._extras[name][index]


def find_data_set(path: pathlib.Path, name: str | None = None) -> pathlib.Path:
  """The folder in the precomputed layout that is meant: `path`, or the one in it.

  Args:
    path: A data set, or a folder with data sets.
    name: Which of several.

  Raises:
    UserError: There is none, or it is not clear which.
  """
  folders = precomputed_folders(path)
  if len(folders) == 1:
    return folders[0]
  chosen = [folder for folder in folders if name and folder.name == f'{name}{SUFFIX}']
  if not chosen:
    names = ', '.join(folder.name for folder in folders[:5])
    raise UserError(f'{path}: holds {len(folders)} data sets ({names}): name one, such as {folders[0]}')
  return chosen[0]


def split_names(folder: pathlib.Path) -> list[str]:
  """The splits of a data set that have features."""
  return sorted(path.name.removesuffix('_ims.npy') for path in folder.glob('*_ims.npy'))


def read_pictures(folder: pathlib.Path, split: str) -> DataPictures:
  """Opens the pictures of a split, with captions or without.

  Raises:
    UserError: A file is missing or wrong.
  """
  path = folder / f'{split}_ids.txt'
  if split == GALLERY:
    features, nobody = RegionFeatures(folder / f'{split}_ims.npy'), np.zeros(0, int)
    ids = image_ids(len(features), nobody, read_lines(path) if path.is_file() else None, path)
    loaded = Split(split, features, [], nobody, ids)
  else:
    loaded = load_split(folder, split)
  captions: list[list[str]] = [[] for _ in range(loaded.num_images)]
  for caption, owner in zip(loaded.captions, loaded.owner.tolist(), strict=True):
    captions[owner].append(caption)
  # Without names a picture is called by its row, which is no name among several splits.
  ids = loaded.ids if path.is_file() else [f'{split}_{number}' for number in loaded.ids]
  twice = [name for name, times in Counter(ids).items() if times > 1]
  if twice:
    raise UserError(f'{path}: two pictures have the id {twice[0]!r}')
  return DataPictures(folder, loaded, ids, [tuple(each) for each in captions])


def _small_picture(folder: pathlib.Path, name: str) -> str | None:
  """The small picture of an id, from the folder of the data set."""
  parts = pathlib.PurePath(name).parts
  if '..' in parts or pathlib.PurePath(name).is_absolute():  # an id is a name, never a way out of the folder
    return None
  names = (f'pictures/{name}{ending}' for ending in _ENDINGS)
  return next((each for each in names if (folder / each).is_file()), None)
