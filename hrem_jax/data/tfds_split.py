"""A split of a TFDS data set that `python -m hrem_jax convert-data` wrote (see docs/data.md)."""

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
    features = TfdsRegions(builder, split, max_regions=about[split]['max_regions'])
    texts = json.loads((folder / captions_file(split)).read_bytes())
  except UserError:
    raise
  except Exception as error:  # of TFDS, protobuf, JSON, a bucket: they have no class in common
    raise UserError(f'{folder}: cannot be opened: {type(error).__name__}: {one_line(error)}') from error
  captions = [caption for image in texts['captions'] for caption in image]
  owner = np.repeat(np.arange(len(features)), [len(image) for image in texts['captions']])
  return Split(split, features, captions, owner, texts['ids'])


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
