"""`dataset_{coco,flickr30k,flickr8k}.json`, in which A. Karpathy's splits of the field's data sets are passed on."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from hrem_jax.errors import UserError, one_line
from hrem_jax.extraction.records import Record, RecordCollector, split_name


def read_karpathy(path: pathlib.Path, root: pathlib.Path) -> list[Record]:
  """The pictures with their raw sentences and their splits.

  Args:
    path: `{"images": [{"filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}`.
    root: The pictures are at `ROOT/filepath/filename`, `ROOT/filename` or `ROOT/images/filename`.

  Raises:
    UserError: It is no such file; the message names the image by its position from 0.
  """
  try:
    content = json.loads(path.read_text('utf-8-sig'))
  except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
    raise UserError(f'{path}: not JSON: {one_line(error)}') from error
  images = content.get('images') if isinstance(content, dict) else None
  if not isinstance(images, list):
    raise UserError(f"{path}: no list 'images', expected dataset_*.json as Karpathy's splits come")
  collector = RecordCollector(root)
  for number, image in enumerate(images):
    place = f'{path}: image {number} (counted from 0)'
    split = split_name(_string(image, 'split', place, needed=False), place)
    collector.add(_picture(image, root, place), _sentences(image, place), split, place)
  return collector.records()


def _picture(image: Any, root: pathlib.Path, place: str) -> str:
  """The first place where the picture is, or the one where it should be."""
  name = _string(image, 'filename', place)
  subfolder = _string(image, 'filepath', place, needed=False)
  candidates = [f'{subfolder}/{name}'] if subfolder else []
  candidates += [name, f'images/{name}']
  if '\0' in name + subfolder:
    return candidates[0]  # refused where all names are
  return next((candidate for candidate in candidates if (root / candidate).is_file()), candidates[0])


def _sentences(image: Mapping[str, Any], place: str) -> list[str]:
  sentences = image.get('sentences', [])
  if not isinstance(sentences, list):
    raise UserError(f"{place}: 'sentences' is {type(sentences).__name__}, expected a list")
  return [_string(sentence, 'raw', place) for sentence in sentences]


def _string(content: Any, key: str, place: str, *, needed: bool = True) -> str:
  if not isinstance(content, dict):
    raise UserError(f'{place}: {type(content).__name__}, expected an object with {key!r}')
  value = content.get(key, None if needed else '')
  if not isinstance(value, str):
    raise UserError(f'{place}: {key!r} is {value!r:.40}, expected a string')
  return value
