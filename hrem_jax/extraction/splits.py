"""Which pictures are for training, which for choosing and which for testing: look-alikes never on two sides."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from hrem_jax.data.precomputed import GALLERY
from hrem_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SplitRule:
  """How pictures are divided of which the source does not say it."""

  dev: float = 0.1  # of the pictures with captions
  test: float = 0.1
  seed: int = 0

  def __post_init__(self):
    for name in ('dev', 'test'):
      if not 0 <= getattr(self, name) < 1:
        raise UserError(f'--{name} {getattr(self, name)}: expected a fraction from 0 to less than 1')
    if self.dev + self.test >= 1:
      raise UserError(f'--dev {self.dev} and --test {self.test} leave nothing for training')

  def describe(self) -> str:
    return 'as the source says, else by SHA-256 of the seed and the file, look-alikes together'


def assign_splits(
  given: Sequence[str | None],
  has_captions: Sequence[bool],
  group: Int[np.ndarray, ' n'],
  digests: Sequence[str],
  rule: SplitRule,
) -> list[str]:
  """The split of each picture.

  A picture without captions is in the gallery; one of which the source says it is where the source says; one that looks
  like such a picture is there, too. All others are drawn by a number that depends on the seed and the file alone, group
  by group, so that pictures which are added later hardly move those that were there. Test and dev get at least half
  of what was asked for and one picture, at most twice as much; groups larger than that are for training.

  Args:
    given: The source's splits.
    has_captions: Whether there is a caption.
    group: Equal for pictures that look alike.
    digests: SHA-256 of the files, hexadecimal.
    rule: Fractions and seed.

  Raises:
    UserError: There are too few different pictures for three splits.
  """
  splits = [None if captions else GALLERY for captions in has_captions]
  splits = [split or its for split, its in zip(splits, given, strict=True)]
  settled = {}
  for number, split in zip(group.tolist(), splits, strict=True):
    if split not in (None, GALLERY):
      settled[number] = min(split, settled.get(number, split))
  members: dict[int, list[int]] = {}
  for index, number in enumerate(group.tolist()):
    if splits[index] is None and number in settled:
      splits[index] = settled[number]
    elif splits[index] is None:
      members.setdefault(number, []).append(index)
  for split, groups in divide([(_draw(indices, digests, rule.seed), indices) for indices in members.values()], rule):
    for index in groups:
      splits[index] = split
  return splits


def _draw(indices: Sequence[int], digests: Sequence[str], seed: int) -> float:
  """A number from 0 to 1 for a group: that of its first member in the order of numbers."""
  return min(int(hashlib.sha256(f'{seed}:{digests[i]}'.encode()).hexdigest()[:13], 16) for i in indices) / 16**13


def divide(groups: list[tuple[float, list[int]]], rule: SplitRule) -> list[tuple[str, list[int]]]:
  """Each group of pictures, with its drawn number, to a split and its pictures.

  Raises:
    UserError: There are fewer groups than splits.
  """
  wanted = [(name, share) for name, share in (('test', rule.test), ('dev', rule.dev)) if share]
  if not groups:
    return []
  if len(groups) <= len(wanted):
    raise UserError(
      f'{len(groups)} different picture(s) with captions, expected at least {len(wanted) + 1} for train, '
      f'{" and ".join(name for name, _ in wanted)}; without splits: --dev 0 --test 0'
    )
  count, limit, divided = sum(len(indices) for _, indices in groups), 0.0, []
  waiting = sorted(groups, key=lambda group: (group[0], group[1]))
  for position, (name, share) in enumerate(wanted):
    limit += share
    num_later = len(wanted) - position  # splits that must get something, too
    taken = _take(waiting, limit, share * count, num_later)
    divided += [(name, waiting[index][1]) for index in taken]
    waiting = [group for index, group in enumerate(waiting) if index not in taken]
  return divided + [('train', indices) for _, indices in waiting]


def _take(waiting: list[tuple[float, list[int]]], limit: float, target: float, num_later: int) -> set[int]:
  """Positions of the groups, in the order of their numbers, that one split gets."""
  least, most = max(1, math.floor(target / 2)), max(1, math.ceil(2 * target))
  largest = max(1, math.ceil(target))  # of a group: a film is for training
  fitting = [index for index, (_, indices) in enumerate(waiting) if len(indices) <= largest]
  if not fitting:  # all pictures are of a few films
    fitting = [min(range(len(waiting)), key=lambda index: len(waiting[index][1]))]
    most = len(waiting[fitting[0]][1])
  taken, size = set(), 0
  for index in fitting:
    draw, indices = waiting[index]
    is_wanted = size < least or draw < limit
    if is_wanted and (size + len(indices) <= most or not size) and len(waiting) - len(taken) > num_later:
      taken.add(index)
      size += len(indices)
  return taken


def straddling(splits: Sequence[str], group: Int[np.ndarray, ' n']) -> list[list[int]]:
  """Groups of look-alikes that lie in several splits with captions, as only a source can order it."""
  members: dict[int, list[int]] = {}
  for index, (split, number) in enumerate(zip(splits, group.tolist(), strict=True)):
    if split != GALLERY:
      members.setdefault(number, []).append(index)
  return [indices for indices in members.values() if len({splits[index] for index in indices}) > 1]
