"""Precision under ties is the mean, the least or the most over all orders of equal scores: every order is tried."""

import itertools

import numpy as np
import pytest

from hrem_jax.ops.precision import average_precision_at_r, first_match_ranks, r_precision
from hrem_jax.ops.ranking import Ranks, recall_metrics

PICK = {'expected': np.mean, 'pessimistic': np.min, 'optimistic': np.max}


def orders(scores):
  """All that a sort may give."""
  return {
    tuple(sorted(range(len(scores)), key=lambda c: (-scores[c], permutation[c])))
    for permutation in itertools.permutations(range(len(scores)))
  }


def precision(order, answers, count):
  return sum(candidate in answers for candidate in order[:count]) / count


def average_precision(order, answers, count):
  places = range(1, min(count, len(order)) + 1)
  return sum(precision(order, answers, place) for place in places if order[place - 1] in answers) / count


def cases(num_cases=60):
  """Scores of few values, from one right candidate to all, with and without right ones that are no candidates."""
  rng = np.random.default_rng(0)
  for _ in range(num_cases):
    count = int(rng.integers(1, 7))
    scores = rng.integers(0, rng.integers(1, 5), 6).astype(float)
    is_match = np.zeros(6, bool)
    is_match[rng.choice(6, count, replace=False)] = True
    yield scores, is_match, count + int(rng.integers(0, 3))


@pytest.mark.parametrize('ties', PICK)
def test_every_order_of_equal_scores(ties):
  found, expected = [], []
  for scores, is_match, count in cases():
    answers, all_orders = set(np.flatnonzero(is_match).tolist()), orders(scores)
    expected.append(
      [
        PICK[ties]([precision(order, answers, count) for order in all_orders]),
        PICK[ties]([average_precision(order, answers, count) for order in all_orders]),
      ]
    )
    row = scores[None]
    by_place = r_precision(row, np.sort(row, axis=1), is_match[None], np.array([count]), ties=ties)
    assert by_place.shape == (1,)
    found.append([by_place[0], average_precision_at_r(scores, is_match, count, ties=ties)])
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  assert np.ptp(np.array(found), axis=0).min() > 0.5


@pytest.mark.parametrize('ties', PICK)
def test_recall_of_the_best_match(ties):
  for scores, is_match, _ in cases():
    ranks = first_match_ranks(scores[None], is_match[None])
    found = recall_metrics(ranks, ties=ties)
    answers = set(np.flatnonzero(is_match).tolist())
    for k in (1, 5):
      hits = [100 * any(candidate in answers for candidate in order[:k]) for order in orders(scores)]
      assert found[f'r{k}'] == pytest.approx(PICK[ties](hits)), (scores, is_match)


def test_the_example_of_the_module():
  scores, is_match = np.array([5.0, 4, 4, 4, 1]), np.array([True, False, True, True, False])
  row = scores[None], np.sort(scores)[None], is_match[None], np.array([3])
  by_place = {ties: float(r_precision(*row, ties=ties)[0]) for ties in PICK}
  assert by_place == pytest.approx({'expected': (1 + 4 / 3) / 3, 'pessimistic': 2 / 3, 'optimistic': 1})
  expected = (1 + 2 / 3 + 2 / 3 * (2 + 1 / 2) / 3) / 3
  assert average_precision_at_r(scores, is_match, 3) == pytest.approx(expected)
  assert average_precision_at_r(scores, is_match, 3) == pytest.approx(0.74, abs=0.005)


def test_queries_stand_alone_and_the_order_of_candidates_does_not_matter():
  rng = np.random.default_rng(1)
  scores, is_match = rng.integers(0, 3, (5, 11)).astype(np.float32), rng.random((5, 11)) < 0.4
  is_match[:, 7] = True
  counts, order = is_match.sum(1), rng.permutation(11)
  whole = r_precision(scores, np.sort(scores, axis=1), is_match, counts)
  assert whole.shape == (5,)
  for query, value in enumerate(whole):
    row, matches = scores[query, order][None], is_match[query, order][None]
    assert r_precision(row, np.sort(row, axis=1), matches, counts[[query]])[0] == value
  level = first_match_ranks(scores, is_match)
  assert [count.shape for count in level] == [(5,)] * 3
  assert (level.tied_positives >= 1).all()


def test_bad_input_raises():
  scores = np.zeros((2, 3))
  with pytest.raises(ValueError, match='query 1 has no right candidate'):
    first_match_ranks(scores, np.array([[True, False, False], [False, False, False]]))
  with pytest.raises(ValueError, match='query 0 has no right candidate'):
    r_precision(scores, scores, scores > 0, np.array([0, 1]))
  with pytest.raises(ValueError, match='query 0 has no right candidate'):
    average_precision_at_r(scores[0], scores[0] > 0, 0)


def test_ranks_are_those_of_the_family():
  """What a query has is what `Ranks` means: by hand."""
  ranks = first_match_ranks(np.array([[3.0, 2, 2, 2, 1]]), np.array([[False, True, True, False, True]]))
  assert ranks == Ranks(*(np.array([value]) for value in (1, 1, 2)))
