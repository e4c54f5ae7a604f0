"""A split of a TFDS data set that `python -m hrem_jax convert-data` wrote (see docs/data.md)."""

import itertools
import json

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from jaxtyping import Bool, Float, Int

from hrem_jax.data.precomputed import Split
from hrem_jax.data.tfds import captions_file, version_folder
from hrem_jax.errors import UserError, one_line
from hrem_jax.paths import num_bytes


class TfdsRegions:
  """The region features of one split, one row per image, as `RegionFeatures` gives them, bit for bit.

  Args:
    builder: Of the data set.
    split: Its name.
    max_regions: Of any image: the width of `rows`.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str, *, max_regions: int):
    self.path, self.max_regions = builder.data_path, max_regions
    self._shards = builder.info.splits[split].file_instructions
    self._source = builder.as_data_source(split)
    regions = builder.info.features['regions']
    self.region_size, self.dtype = regions.shape[1], np.dtype(regions.np_dtype)

  def __len__(self) -> int:
    return len(self._source)

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[Float[np.ndarray, 'b r f'], Bool[np.ndarray, 'b r']]:
    """The regions of some images, and which of them are real; padding is zero.

    Raises:
      UserError: A file is damaged: each piece of it has a checksum.
    """
    index = np.asarray(index).tolist()
    try:
      examples = self._source.__getitems__(index)
    except (OSError, RuntimeError, ValueError) as error:
      raise self._damage(index, error) from error
    regions = np.zeros((len(index), self.max_regions, self.region_size), self.dtype)
    mask = np.zeros(regions.shape[:2], bool)
    for row, example in enumerate(examples):
      count = len(example['regions'])
      if count > self.max_regions:
        raise UserError(
          f'{self.path}: row {index[row]} of the split has {count} regions, expected at most {self.max_regions}, as '
          'the description of the data set says'
        )
      regions[row, :count], mask[row, :count] = example['regions'], True
    return regions, mask

  def _damage(self, index: list[int], error: Exception) -> UserError:
    """Says which of the rows, and of the files, it was."""
    for row in index:
      try:
        self._source[row]
      except (OSError, RuntimeError, ValueError):
        ends = np.cumsum([shard.take for shard in self._shards])
        shard = self._shards[int(np.searchsorted(ends, row, side='right'))].filename
        return UserError(f'{shard}: damaged or missing: row {row} of the split cannot be read: {one_line(error)}')
    return UserError(f'{self.path}: {one_line(error)}')


def load_tfds_split(directory: str, name: str, split: str) -> Split:
  """Opens a split; of the features nothing is read.

  Args:
    directory: `config.data.directory`: the folder that `convert-data` wrote to, or its address (`gs://...`).
    name: `config.data.name`.
    split: Its name.

  Raises:
    UserError: There is no such data set or split, or a file is missing or of another size than when it was written.
  """
  folder = version_folder(directory, name)
  try:
    if not (folder / 'dataset_info.json').exists():
      raise UserError(f'{folder}: no TFDS data set there; `python -m hrem_jax convert-data` makes one')
    builder = tfds.builder_from_directory(folder)
    about, files = builder.info.metadata['splits'], builder.info.metadata['files']
    if split not in about:
      raise UserError(f'{folder}: no split {split!r} in this TFDS data set, which has {", ".join(about)}')
    _check_files(folder, split, files)
    features = TfdsRegions(builder, split, max_regions=int(about[split]['max_regions']))
    path = folder / captions_file(split)
    ids, captions_of = _read_texts(path.read_bytes(), str(path), len(features))
  except UserError:
    raise
  except Exception as error:  # of TFDS, protobuf, JSON, a bucket: they have no class in common
    raise UserError(f'{folder}: cannot be opened: {type(error).__name__}: {one_line(error)}') from error
  captions = [caption for captions in captions_of for caption in captions]
  owner = np.repeat(np.arange(len(features)), [len(captions) for captions in captions_of])
  return Split(split, features, captions, owner, ids)


def _read_texts(content: bytes, source: str, num_images: int) -> tuple[list[str], list[list[str]]]:
  """The id of each image and its captions; UserError where they are not those of so many images."""
  texts = json.loads(content)
  ids, captions = texts['ids'], texts['captions']
  lists = (ids, captions, *captions)
  strings = (*ids, *itertools.chain.from_iterable(captions))
  if not all(isinstance(each, list) for each in lists) or not all(isinstance(each, str) for each in strings):
    raise UserError(f'{source}: expected lists of strings: an id for each image, and its captions')
  if len(ids) != num_images or len(captions) != num_images:
    raise UserError(f'{source}: {len(ids)} ids and captions of {len(captions)} images, expected those of {num_images}')
  return ids, captions


def _check_files(folder: epath.Path, split: str, files: dict[str, int]) -> None:
  """A data set that was copied in part, or cut off, is named before the first step and not after hours."""
  for name, size in files.items():
    if not name.startswith((f'region_captions-{split}.', captions_file(split))):
      continue
    path = folder / name
    if not path.exists():
      raise UserError(f'{path}: no such file; was the data set copied as a whole?')
    found = num_bytes(path)
    if found != size:
      raise UserError(f'{path}: {found} bytes, expected {size}; was the data set copied as a whole?')
