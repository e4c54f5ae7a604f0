"""Precision among the first R candidates, R being how many right ones a query has, exactly under ties.

For sets with many right answers per query (ECCV Caption, plausible matches). As in `hrem_jax.ops.ranking`, equal scores
are not in the order that a sort happens to give: `expected` is the exact mean over all their orders, `pessimistic` puts
wrong candidates first, `optimistic` right ones. Worked by hand, right candidates marked:

    scores  5*  4  4*  4*  1     R = 3: the places 2 and 3 go to two of the three level ones, of which two are right
    R-precision, expected        (1 + 2 * 2/3) / 3 = 0.78;  pessimistic (1 + 1) / 3;  optimistic 1
    mAP@R, expected              (1 + 2/3 * 2/2 + 2/3 * (1 + 1 + 1/2) / 3) / 3 = 0.74
                                 place 2 is right in 2/3 of the orders, place 3 too, then with place 2 right in half

Everything runs on the host in NumPy.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.ops.ranking import Ranks, TieRule


def first_match_ranks(scores: Float[np.ndarray, 'q c'], is_match: Bool[np.ndarray, 'q c']) -> Ranks:
  """The counts behind recall, relative to the best right candidate of each query, of which there is at least one."""
  if not is_match.any(axis=1).all():
    raise ValueError(f'query {int(np.argmin(is_match.any(axis=1)))} has no right candidate')
  best = np.max(scores, axis=1, where=is_match, initial=-np.inf, keepdims=True)
  is_level = scores == best
  level_matches = np.sum(is_level & is_match, axis=1)
  return Ranks(np.sum(scores > best, axis=1), np.sum(is_level, axis=1) - level_matches, level_matches)


def r_precision(
  scores: Float[np.ndarray, 'q c'],
  ascending: Float[np.ndarray, 'q c'],
  is_match: Bool[np.ndarray, 'q c'],
  num_matches: Int[np.ndarray, 'q'],
  *,
  ties: TieRule = 'expected',
) -> Float[np.ndarray, 'q']:
  """Which share of the first R candidates is right.

  Args:
    scores: Higher is better.
    ascending: `np.sort(scores, axis=1)`: given, because several judgements may share it.
    is_match: The right candidates.
    num_matches: R of each query, at least 1. More than there are among the candidates if some right ones are not there:
      they count as not found.
    ties: See above.
  """
  _check(num_matches)
  num_candidates = scores.shape[1]
  places = np.minimum(num_matches, num_candidates)
  threshold = np.take_along_axis(ascending, (num_candidates - places)[:, None], axis=1)
  is_above, is_level = scores > threshold, scores == threshold
  places_left, level = places - np.sum(is_above, axis=1), np.sum(is_level, axis=1)
  level_matches = np.sum(is_level & is_match, axis=1)
  found = {
    'expected': places_left * level_matches / level,
    'pessimistic': np.maximum(places_left - (level - level_matches), 0),
    'optimistic': np.minimum(places_left, level_matches),
  }
  return (np.sum(is_above & is_match, axis=1) + found[ties]) / num_matches


def average_precision_at_r(
  scores: Float[np.ndarray, 'c'], is_match: Bool[np.ndarray, 'c'], num_matches: int, *, ties: TieRule = 'expected'
) -> float:
  """mAP@R of one query: the mean over the places 1 to R of the precision up to there, 0 where the place is wrong.

  Musgrave et al. 2020. Arguments as in `r_precision`.
  """
  _check(np.asarray([num_matches]))
  places = min(num_matches, len(scores))
  chosen = np.flatnonzero(scores >= np.partition(scores, len(scores) - places)[len(scores) - places])
  _, group, sizes = np.unique(-scores[chosen], return_inverse=True, return_counts=True)
  matches = np.bincount(group, weights=is_match[chosen])
  place = np.arange(1, places + 1)
  group = np.searchsorted(np.cumsum(sizes), place)  # of equal scores, the one that each place belongs to
  before = (np.cumsum(matches) - matches)[group]  # right ones in better groups
  within = place - (np.cumsum(sizes) - sizes)[group]  # place in the group, from 1
  size, match = sizes[group], matches[group]
  found = {  # right ones up to each place, where that place is right, times the probability that it is
    'expected': match / size * (before + 1 + (within - 1) * (match - 1) / np.maximum(size - 1, 1)),
    'pessimistic': np.where(within > size - match, before + within - (size - match), 0),
    'optimistic': np.where(within <= match, before + within, 0),
  }
  return float(np.sum(found[ties] / place) / num_matches)


def _check(num_matches: Int[np.ndarray, 'q']) -> None:
  if np.min(num_matches) < 1:
    raise ValueError(f'query {int(np.argmin(num_matches))} has no right candidate')
