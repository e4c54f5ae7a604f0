"""Examines a data set in the precomputed layout (docs/data.md) and lists everything that is wrong with it."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hrem_jax.data.check_split import ExaminedSplit, examine_split
from hrem_jax.data.precomputed import GALLERY, files_of_splits

EXPECTED = ('train', 'dev', 'test')
ENDINGS = ('ims.npy', 'caps.txt', 'ids.txt', 'num_regions.npy')


@dataclasses.dataclass(frozen=True)
class Examination:
  """What is wrong (no training is possible, or a wrong one), what a person should know, and what there is."""

  problems: list[str]  # each names the file, and the line (from 1) or row (from 0)
  warnings: list[str]
  splits: list[ExaminedSplit]


def examine(
  folder: pathlib.Path, *, widest: int, scanned: Callable[[int], None] = lambda num_bytes: None
) -> Examination:
  """Reads every file of a data set; needs little memory, and time to read all features once.

  Args:
    folder: In the precomputed layout.
    widest: The widest of `config.data.length_buckets`.
    scanned: Is told how many bytes of features have been read since it was last told.
  """
  splits = [examine_split(folder, name, widest=widest, scanned=scanned) for name in split_names(folder)]
  problems = list(itertools.chain.from_iterable(split.problems for split in splits))
  problems += size_problems(splits) + shared_images(splits)
  return Examination(problems, list(itertools.chain.from_iterable(split.warnings for split in splits)), splits)


def split_names(folder: pathlib.Path) -> list[str]:
  """The three that every configuration wants, and all others of which there is a file; a gallery may stand alone."""
  found = {name for ending in ENDINGS for name in files_of_splits(folder, ending)}
  return [GALLERY] if found == {GALLERY} else [*EXPECTED, *sorted(found - set(EXPECTED))]


def size_problems(splits: Sequence[ExaminedSplit]) -> list[str]:
  """Splits whose features are of another size than those of the first."""
  first, *others = [split for split in splits if split.shape] or [None]
  return [
    f'{split.path("ims.npy")}: features of size {split.shape[2]}, but {first.path("ims.npy").name} has {first.shape[2]}'
    for split in others
    if split.shape[2] != first.shape[2]
  ]


def shared_images(splits: Sequence[ExaminedSplit]) -> list[str]:
  """Images of one split that are in another, too: figures on it would be worth nothing.

  Splits of one kind may overlap (`test` is a part of `testall`), and ids that merely count rows say nothing.
  """
  problems = []
  for ours, theirs in itertools.combinations([split for split in splits if split.ids], 2):
    if theirs.name.startswith(ours.name) or (counts_rows(ours.ids) and counts_rows(theirs.ids)):
      continue
    lines = first_lines(ours.ids)
    problems += [
      f'{theirs.path("ids.txt")}: line {line}: {image_id!r} is also in {ours.path("ids.txt").name}, '
      f'line {lines[image_id]}'
      for image_id, line in first_lines(theirs.ids).items()
      if image_id in lines
    ]
  return problems


def first_lines(ids: Iterable[str]) -> dict[str, int]:
  """Each id and the line on which it stands first."""
  lines = {}
  for number, image_id in enumerate(ids, start=1):
    lines.setdefault(image_id, number)
  return lines


def counts_rows(ids: Iterable[str]) -> bool:
  """Whether ids are 0, 1, 2 and so on, once or in runs."""
  return all(image_id == str(row) for row, image_id in enumerate(dict.fromkeys(ids)))


_COLUMNS = ('split', 'images', 'captions', 'an image', 'words', 'regions', 'of size', 'type', 'bytes')


def format_counts(splits: Sequence[ExaminedSplit]) -> str:
  """A table of splits without problems; three numbers in a column are smallest, mean and largest."""
  rows = [_COLUMNS, *map(_counts, splits)]
  widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
  lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
  return '\n'.join([*lines, 'captions of an image, words of a caption, regions of an image: smallest, mean, largest'])


def _counts(split: ExaminedSplit) -> tuple[str, ...]:
  words = [len(caption.split()) for caption in split.captions]
  return (
    split.name,
    f'{split.num_images:,}',
    f'{len(split.captions):,}',
    _spread([] if split.owner is None else np.bincount(split.owner)),
    _spread(words),
    _spread(split.num_regions[:: split.repeat]),
    str(split.shape[2]),
    str(split.dtype),
    f'{split.path("ims.npy").stat().st_size:,}',
  )


def _spread(numbers: Sequence[int]) -> str:
  if not len(numbers):
    return '-'
  return f'{np.min(numbers)} {np.mean(numbers):.1f} {np.max(numbers)}'
