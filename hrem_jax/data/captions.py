"""Caption and id files, and which image each caption belongs to."""

import codecs
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from hrem_jax.data.features import open_array, repeats_each_image
from hrem_jax.errors import UserError

LONGEST_LINE = 2**16  # bytes of a caption or an id; the work of a tokenizer, and its memory, grow with it
CAPTIONS_PER_IMAGE = 5  # of the field's files; own data may have any number


def read_lines(path: pathlib.Path) -> list[str]:
  """The lines of a UTF-8 file, without their ends.

  Raises:
    UserError: The file is missing, not UTF-8 or has an empty line; the message names the line, counted from 1.
  """
  lines, problems = examine_lines(path)
  if problems:
    raise UserError(problems[0])
  return lines


def examine_lines(path: pathlib.Path) -> tuple[list[str], list[str]]:
  """The lines of a UTF-8 file, without their ends, and everything that is wrong with them."""
  if not path.is_file():
    return [], [f'{path}: no such file']
  lines, problems = [], []
  for number, line in enumerate(_content(path).split(b'\n'), start=1):
    if len(line) > LONGEST_LINE:
      problems.append(f'{path}: line {number} has {len(line):,} bytes, expected at most {LONGEST_LINE:,}')
      line = line[: LONGEST_LINE // 4].decode('utf-8', errors='ignore').encode()  # what follows is not looked at
    try:
      lines.append(line.decode('utf-8').strip())
    except UnicodeDecodeError as error:
      lines.append(line.decode('utf-8', errors='replace').strip())
      problems.append(f'{path}: line {number} is not UTF-8: byte {error.object[error.start]:#04x}')
    if not lines[-1]:
      problems.append(f'{path}: line {number} is empty')
  return lines, problems


def _content(path: pathlib.Path) -> bytes:
  """Without the mark with which Windows begins a file, which would be a part of the first word."""
  return path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b'\n')


def assign_owners(
  features_path: pathlib.Path, num_captions: int, ids: Sequence[str] | None
) -> tuple[Int[np.ndarray, ' t'], int]:
  """The image row of each caption, and how often the features file repeats each image.

  The conventions, in this order:
    * as many ids as captions, in runs, with one row (or one row per caption) for each run: any number of captions
      per image;
    * as many rows as captions: the field's dev and test files, every row five times, if the rows do repeat; else one
      caption per image;
    * captions a multiple of rows: that many captions for each image, in order.

  Args:
    features_path: `SPLIT_ims.npy`.
    num_captions: Lines of `SPLIT_caps.txt`.
    ids: Lines of `SPLIT_ids.txt`, one per image or one per caption; None where there is no such file.

  Raises:
    UserError: None of them fits.
  """
  features = open_array(features_path, num_dimensions=3)
  rows = len(features)
  if ids is not None and len(ids) == num_captions:
    starts = np.array([True, *(a != b for a, b in itertools.pairwise(ids))])
    num_images = int(starts.sum())
    owner = np.cumsum(starts) - 1
    if num_images == rows:
      return owner, 1
    if rows == num_captions and num_captions == num_images * CAPTIONS_PER_IMAGE:
      return owner, CAPTIONS_PER_IMAGE
  if rows == num_captions:
    repeat = CAPTIONS_PER_IMAGE if rows % CAPTIONS_PER_IMAGE == 0 else 1
    repeat = repeat if repeats_each_image(features, repeat) else 1
    return np.arange(num_captions) // repeat, repeat
  if rows and num_captions % rows == 0:
    return np.arange(num_captions) // (num_captions // rows), 1
  raise UserError(
    f'{features_path.parent}: {num_captions} captions do not divide into the {rows} images of {features_path.name}; '
    f'for other than equal numbers give {features_path.name.replace("_ims.npy", "_ids.txt")} one id per caption'
  )


def image_ids(
  num_images: int, owner: Int[np.ndarray, ' t'], ids: Sequence[str] | None, path: pathlib.Path
) -> list[str]:
  """One id per image, from a file that has one per image or one per caption; the row's number where there is none."""
  if ids is None:
    return [str(row) for row in range(num_images)]
  if len(ids) == num_images:
    return list(ids)
  if len(ids) == len(owner):
    first_caption = np.searchsorted(owner, np.arange(num_images))
    return [ids[caption] for caption in first_caption]
  raise UserError(id_count_problem(path, len(ids), num_images, len(owner)))


def id_count_problem(path: pathlib.Path, num_ids: int, num_images: int, num_captions: int) -> str:
  return f'{path}: {num_ids} ids, expected one per image ({num_images}) or one per caption ({num_captions})'
