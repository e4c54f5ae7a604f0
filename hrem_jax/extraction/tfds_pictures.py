"""A TFDS data set of pictures with captions, such as TFDS's own `coco_captions`, as a source; without TensorFlow."""

import io
import pathlib
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import tensorflow_datasets as tfds
from tqdm import tqdm

from hrem_jax.errors import UserError, one_line
from hrem_jax.extraction.records import Record, clean_captions, split_name

INFO, FEATURES = 'dataset_info.json', 'features.json'
_WANTED = "expected are the features 'image' (encoded) and 'captions' (texts, or a sequence of {'text'})"


class _Examples:
  """The examples of a split, pictures as they were encoded. Threads take turns: ArrayRecord opens files when asked."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
    self._source = builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    self._place, self._lock = f'{builder.data_path}: split {split}', threading.Lock()

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, row: int) -> Mapping[str, Any]:
    try:
      with self._lock:
        return self._source[row]
    except (OSError, RuntimeError, ValueError) as error:
      raise UserError(f'{self._place}: example {row} cannot be read: {one_line(error)}') from error


class _Picture:
  """That of an example: a `PackedPicture`."""

  def __init__(self, examples: _Examples, row: int, size: int):
    self._examples, self._row, self.size = examples, row, size

  def open(self, mode: str = 'rb') -> BinaryIO:
    return io.BytesIO(self._examples[self._row]['image'])

  def is_dir(self) -> bool:
    return False


def read_tfds(folder: pathlib.Path) -> list[Record]:
  """The pictures of all splits. Those of `coco_captions` are Karpathy's: `val` is dev, `restval` is for training, too.

  Args:
    folder: `NAME/CONFIG/VERSION`, written with `file_format='array_record'`.

  Raises:
    UserError: It cannot be read, or has other features; the message says which were expected.
  """
  try:
    builder = tfds.builder_from_directory(folder)
  except Exception as error:  # of TFDS, protobuf, JSON: they have no class in common
    raise UserError(f'{folder}: cannot be opened as a TFDS data set: {one_line(error)[:300]}') from error
  features = builder.info.features
  is_known = isinstance(features, tfds.features.FeaturesDict) and {'image', 'captions'} <= set(features)
  if not is_known or not isinstance(features['image'], tfds.features.Image):
    raise UserError(f'{folder / FEATURES}: {_WANTED}')
  if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f'{folder / INFO}: written as {builder.info.file_format.value}, expected array_record: prepare it with '
      f'`tfds build {builder.name} --file_format=array_record`'
    )
  records: list[Record] = []
  with tqdm(total=sum(split.num_examples for split in builder.info.splits.values()), desc='captions', delay=1) as bar:
    for name in builder.info.splits:
      split, examples = split_name(name, f'{folder / INFO}'), _Examples(builder, name)
      for row in range(len(examples)):
        records.append(_record(examples, row, name, split, folder))
        bar.update()
  return records


def _record(examples: _Examples, row: int, split: str, its_split: str | None, folder: pathlib.Path) -> Record:
  example = examples[row]
  captions = clean_captions(_texts(example['captions'], folder))
  name = example.get('image/filename', example.get('image/id', f'{split}/{row}'))
  name = name.decode('utf-8', 'replace') if isinstance(name, bytes) else str(name)
  return Record(_Picture(examples, row, len(example['image'])), name, captions, its_split if captions else None)


def _texts(captions: Any, folder: pathlib.Path) -> list[str]:
  texts = captions.get('text') if isinstance(captions, Mapping) else captions
  if texts is None or not all(isinstance(text, bytes) for text in texts):
    raise UserError(f'{folder / FEATURES}: {_WANTED}')
  return [text.decode('utf-8', 'replace') for text in texts]
