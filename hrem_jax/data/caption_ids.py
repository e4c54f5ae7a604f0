"""COCO's numbers of captions: what says which caption of a test split is which one of the data set's annotations."""

import json
import pathlib
import re
from collections import Counter, defaultdict

import numpy as np
from jaxtyping import Int

from hrem_jax.data.captions import read_lines
from hrem_jax.data.precomputed import Split, load_split
from hrem_jax.errors import UserError, one_line
from hrem_jax.files import write_text


def caption_ids_path(folder: pathlib.Path, split: str) -> pathlib.Path:
  """The optional file beside `SPLIT_caps.txt`."""
  return folder / f'{split}_caption_ids.txt'


def read_caption_ids(path: pathlib.Path) -> Int[np.ndarray, ' t']:
  """One COCO annotation id a line, in the order of `SPLIT_caps.txt`.

  Raises:
    UserError: There is no such file, or a line is no number.
  """
  lines = read_lines(path)
  for number, line in enumerate(lines, start=1):
    if not (line.isascii() and line.isdecimal() and len(line) < 19):
      raise UserError(f'{path}: line {number} is {line!r}, expected the number of a COCO caption (annotation id)')
  return np.array(lines, np.int64)


class Annotations:
  """Captions with their numbers, by image."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.captions: dict[int, list[tuple[int, str]]] = defaultdict(list)  # image id -> caption id and spelling
    self._images_with: dict[str, set[int]] = defaultdict(set)
    try:
      content = json.loads(path.read_text('utf-8'))
      for image_id, caption_id, caption in _rows(content):
        self.captions[image_id].append((caption_id, spelling(caption)))
        self._images_with[spelling(caption)].add(image_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(
        f'{path}: {type(error).__name__}: {one_line(error)}; expected is captions_val2014.json of COCO, or '
        "Karpathy's dataset_coco.json"
      ) from error

  def find(self, spellings: list[str]) -> set[int]:
    """The images that have all of these captions, each as often as it is given."""
    wanted = Counter(spellings)
    images = set.intersection(*(self._images_with.get(text, set()) for text in wanted))
    return {image for image in images if not wanted - Counter(text for _, text in self.captions[image])}


def _rows(content: dict):
  if 'annotations' in content:
    for row in content['annotations']:
      yield row['image_id'], row['id'], row['caption']
  else:
    for image in content['images']:
      for sentence in image['sentences']:
        yield image['cocoid'], sentence['sentid'], sentence['raw']


def spelling(caption: str) -> str:
  """Letters and digits alone: files differ in case, spaces and punctuation."""
  return ''.join(re.findall(r'\w', caption.lower()))


def write_caption_ids(folder: pathlib.Path, split: str, annotations: pathlib.Path) -> pathlib.Path:
  """Writes `SPLIT_caption_ids.txt` of a folder in the precomputed layout, and returns its path.

  Raises:
    UserError: The split or the annotations are missing or damaged, or as for `find_caption_ids`.
  """
  path = caption_ids_path(folder, split)
  found = find_caption_ids(load_split(folder, split), Annotations(annotations))
  write_text(path, ''.join(f'{number}\n' for number in found))
  return path


def find_caption_ids(split: Split, annotations: Annotations) -> list[int]:
  """The number of each caption of a split, found by the captions of its image together.

  Raises:
    UserError: The captions of an image are those of no image, or of several ones, in the annotations.
  """
  found = [0] * len(split.captions)
  for image in range(split.num_images):
    rows = np.flatnonzero(split.owner == image).tolist()
    spellings = [spelling(split.captions[row]) for row in rows]
    images = annotations.find(spellings) if rows else set()
    if len(images) != 1 and rows:
      several = f'{len(images)} images' if images else 'no image'
      raise UserError(
        f'{annotations.path}: {several} with all {len(rows)} captions of image {split.ids[image]!r} of {split.name}, '
        f'the first of them {split.captions[rows[0]]!r}; expected exactly one'
      )
    left = [row for chosen in images for row in annotations.captions[chosen]]
    for row, text in zip(rows, spellings, strict=True):
      number = next(position for position, (_, other) in enumerate(left) if other == text)
      found[row] = left.pop(number)[0]
  return found
