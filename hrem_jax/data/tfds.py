"""The precomputed layout as a TFDS data set in ArrayRecord: portable, in shards, read at random, without TensorFlow.

`OUTPUT/region_captions/NAME/1.0.0` holds one example per image. Any TFDS reads it, without this package:
`tfds.data_source('region_captions/NAME', split='train', data_dir=OUTPUT)`.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tqdm import tqdm

from hrem_jax.data.precomputed import SUFFIX, Split, load_split
from hrem_jax.data.sources import precomputed_folders
from hrem_jax.errors import UserError, one_line
from hrem_jax.paths import local_path, num_bytes

VERSION = '1.0.0'
SHARD_BYTES = 2**28  # of features: TFDS keeps the examples of a shard in memory until it is written
CHUNK = 64  # images read at a time
DESCRIPTION = (
  'Region features of images and their captions, one example per image in the order of the source, for image-text '
  'matching. `regions` holds the real regions only.'
)


def captions_file(split: str) -> str:
  """The captions and ids of a split once more, apart from the features: nobody reads gigabytes to know them."""
  return f'captions-{split}.json'


def version_folder(directory: str | os.PathLike, name: str) -> epath.Path:
  """Where the data set NAME lies; `directory` may be an address such as `gs://BUCKET/FOLDER`."""
  directory = os.fspath(directory)
  folder = epath.Path(directory if '://' in directory else local_path(directory))
  return folder / 'region_captions' / name / VERSION


class _Metadata(tfds.core.MetadataDict):
  """Beside `metadata.json`, which lists all files and their sizes, the captions of each split."""

  def __init__(self, splits: tuple[Split, ...]):
    super().__init__(
      source=splits[0].features.path.parent.name, splits={split.name: describe(split) for split in splits}
    )
    self._splits = splits

  def save_metadata(self, data_dir: epath.PathLike) -> None:
    folder = epath.Path(data_dir)
    for split in self._splits:
      content = {'ids': split.ids, 'captions': captions_of(split)}
      (folder / captions_file(split.name)).write_text(json.dumps(content, ensure_ascii=False))
    self['files'] = {path.name: num_bytes(path) for path in sorted(folder.iterdir())}
    super().save_metadata(data_dir)


@dataclasses.dataclass(eq=False)
class SourceConfig(tfds.core.BuilderConfig):
  """A data set in the precomputed layout: its splits, and who is told of each image that was written."""

  splits: tuple[Split, ...] = dataclasses.field(default=(), repr=False)  # TFDS prints configurations
  shard_bytes: int = SHARD_BYTES
  written: Callable[[int], None] = dataclasses.field(default=lambda count: None, repr=False)


with tfds.core.registered.skip_registration():  # what is written is read by its own description, not by this class

  class RegionCaptions(tfds.core.ShardBasedBuilder):
    """Writes in the order of the source, a shard at a time.

    A GeneratorBasedBuilder without shuffling sorts a whole split in memory, and beyond 1 GB it wants TensorFlow.
    """

    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
      first = self.builder_config.splits[0].features
      features = tfds.features.FeaturesDict(
        {
          'image_id': tfds.features.Text(),
          'captions': tfds.features.Sequence(tfds.features.Text()),
          'num_regions': np.int32,
          'regions': tfds.features.Tensor(
            shape=(None, first.region_size), dtype=first.dtype.type, encoding=tfds.features.Encoding.BYTES
          ),
        }
      )
      return tfds.core.DatasetInfo(
        builder=self,
        description=DESCRIPTION,
        features=features,
        disable_shuffling=True,
        metadata=_Metadata(self.builder_config.splits),
      )

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
      config, shards_of = self.builder_config, {}
      for split in config.splits:
        example = functools.partial(examples, split, captions_of(split), written=config.written)
        shards_of[split.name] = [functools.partial(example, rows) for rows in shards(split, config.shard_bytes)]
      return shards_of


def describe(split: Split) -> dict:
  """What the examples do not say: how wide batches are, and how the source was read."""
  features = split.features
  return {
    'num_images': split.num_images,
    'num_captions': len(split.captions),
    'max_regions': features.max_regions,
    'rows_per_image_in_source': features.repeat,
    'ids_from': 'file' if features.path.with_name(f'{split.name}_ids.txt').is_file() else 'row numbers',
  }


def captions_of(split: Split) -> list[list[str]]:
  """The captions of each image."""
  ends = np.cumsum(np.bincount(split.owner, minlength=split.num_images))
  return [split.captions[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def shards(split: Split, shard_bytes: int) -> list[range]:
  """The images of each shard: of about `shard_bytes`, all of nearly the same number."""
  features = split.features
  per_shard = max(shard_bytes // (features.max_regions * features.region_size * features.dtype.itemsize), 1)
  count = -(-split.num_images // per_shard)
  ends = [round(split.num_images * index / count) for index in range(count + 1)]
  return [range(ends[index], ends[index + 1]) for index in range(count)]


def examples(
  split: Split, captions: list[list[str]], rows: range, *, written: Callable[[int], None]
) -> Iterator[tuple[int, dict]]:
  """The examples of some images, keyed by their rows; UserError where a feature is not finite."""
  for start in range(rows.start, rows.stop, CHUNK):
    index = np.arange(start, min(start + CHUNK, rows.stop))
    regions, mask = split.features.rows(index)
    for row, image, real in zip(index.tolist(), regions, mask, strict=True):
      count = int(real.sum())  # real regions come first
      texts, image_id = captions[row], split.ids[row]
      yield row, {'image_id': image_id, 'captions': texts, 'num_regions': count, 'regions': image[:count]}
    written(len(index))


def convert(source: pathlib.Path, output: pathlib.Path, *, shard_bytes: int = SHARD_BYTES) -> list[pathlib.Path]:
  """Writes data sets in the precomputed layout as TFDS data sets, with a progress bar.

  A data set is there as a whole or not at all: it is written beside its place and moved there at the end. Those of
  several that are there already are left as they are. Remains of an interrupted conversion are removed; two at the
  same time into the same place disturb each other.

  Args:
    source: A folder `NAME_precomp`, or one with such folders in it.
    output: A local folder; to a bucket the finished data set can be copied as it is.
    shard_bytes: Features per shard, before compression.

  Returns:
    The folders that were written.

  Raises:
    UserError: The source is wrong, all of it is there already, or it cannot be written.
  """
  output, sources = local_path(output), precomputed_folders(source)
  written = {folder: pathlib.Path(version_folder(output, _name(folder))) for folder in sources}
  pending = {folder: target for folder, target in written.items() if not target.exists()}
  if not pending:
    raise UserError(f'{written[sources[0]]}: is there already; remove it to convert {sources[0]} anew')
  for folder, target in pending.items():
    _convert_one(folder, output, target, shard_bytes)
  return list(pending.values())


def _name(source: pathlib.Path) -> str:
  return source.resolve().name.removesuffix(SUFFIX)


def _convert_one(source: pathlib.Path, output: pathlib.Path, folder: pathlib.Path, shard_bytes: int) -> None:
  name, splits = _name(source), open_splits(source)
  _check_names(source, name, splits)
  _remove_remains(folder)
  total = sum(split.num_images for split in splits)
  with tqdm(total=total, desc=name, unit=' images', mininterval=0.5) as bar:
    config = SourceConfig(name=name, description=source.name, splits=splits, shard_bytes=shard_bytes)
    config.written = bar.update
    try:
      _write(config, output)
    except KeyError as error:
      if 'getpwuid' not in str(error):
        raise
      raise UserError(f'{folder}: cannot be written: TFDS wants a user with a name, this id has none') from error
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter
      raise UserError(f'{folder}: cannot be written: {one_line(error)}') from error


def open_splits(source: pathlib.Path) -> tuple[Split, ...]:
  """All splits of a folder; TFDS wants features of one size and type in all of them."""
  names = sorted(path.name.removesuffix('_ims.npy') for path in source.glob('*_ims.npy'))
  splits = tuple(load_split(source, name) for name in names or ['train'])
  first = splits[0].features
  for features in (split.features for split in splits[1:]):
    if (features.region_size, features.dtype) != (first.region_size, first.dtype):
      raise UserError(
        f'{features.path}: {features.dtype} features of size {features.region_size}, but those of {first.path.name} '
        f'are {first.dtype} of size {first.region_size}; a TFDS data set has one type and size'
      )
  return splits


def _check_names(source: pathlib.Path, name: str, splits: tuple[Split, ...]) -> None:
  """TFDS makes paths of names, and reads `all` and signs such as [:] in the name of a split as instructions."""
  for kind, word, allowed in (
    ('data set', name, r'\w[\w.-]*'),
    *(('split', split.name, r'\w[\w-]*') for split in splits),
  ):
    if not re.fullmatch(allowed, word) or word == 'all':
      raise UserError(f'{source}: {word!r} cannot be the name of a {kind} of TFDS: letters, digits, _ and - can')


def _remove_remains(folder: pathlib.Path) -> None:
  """What a killed conversion left of this data set."""
  for remains in folder.parent.glob(f'incomplete.*_{folder.name}'):
    epath.Path(remains).rmtree()


def _write(config: SourceConfig, output: pathlib.Path) -> None:
  builder = RegionCaptions(config=config, data_dir=output, file_format='array_record')
  # TFDS makes a folder for downloads, of which there are none, and prints that it downloads.
  with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_dir=downloads)
