"""Which examples are chosen, and how their lists are ordered."""

import numpy as np
import pytest

from hrem_jax.report.examples import best_of, choose_examples, evenly_spaced
from hrem_jax.retrieval.scores import DotScores


def unit_rows(count: int, size: int = 17, seed: int = 0) -> np.ndarray:
  rows = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def positions(candidates) -> list[int]:
  return [candidate.position for candidate in candidates]


def test_a_list_is_ordered_by_score_and_knows_its_right_ones():
  scores = np.array([0.1, 0.9, 0.5, 0.3, 0.8, 0.7, 0.2], np.float32)
  example = best_of(3, scores, np.array([1, 0, 1, 0, 0, 0, 0], bool))
  assert example.query == 3
  assert [candidate.row for candidate in example.best] == [1, 4, 5, 2, 3]
  assert [candidate.is_right for candidate in example.best] == [False, False, False, True, False]
  assert positions(example.right) == [4, 7]
  assert example.num_candidates == 7
  assert example.right_is_shown
  assert not example.is_hit


def test_wrong_ones_that_tie_stand_before_the_right_one():
  example = best_of(0, np.ones(8, np.float32), np.arange(8) == 0)
  assert positions(example.right) == [8]
  assert [candidate.row for candidate in example.best] == [1, 2, 3, 4, 5]
  assert not example.right_is_shown


def test_a_difference_in_the_last_bit_is_a_tie():
  scores = np.array([1, np.nextafter(np.float32(1), np.float32(0))], np.float32)
  assert positions(best_of(0, scores, np.array([True, False])).right) == [2]


def test_fewer_candidates_than_places():
  assert positions(best_of(0, np.array([0.5, 0.6]), np.array([True, False])).best) == [1, 2]


@pytest.mark.parametrize(
  ('num_rows', 'count', 'expected'),
  [(9, 3, [1, 4, 7]), (10, 3, [1, 5, 8]), (2, 3, [0, 1]), (0, 3, []), (7, 1, [3])],
)
def test_evenly_spaced(num_rows, count, expected):
  assert list(evenly_spaced(np.arange(num_rows), count)) == expected


def test_half_are_mistakes_and_they_agree_with_the_scores():
  images = unit_rows(23)
  owner = np.repeat(np.arange(23), 3)
  texts = images[owner].copy()
  texts[::2] = unit_rows(len(texts[::2]), seed=1)  # every other caption says something else
  similarity = images @ texts.T
  by_text, by_image = choose_examples(DotScores(images, texts), owner)

  first = similarity.argmax(axis=0) == owner
  assert by_text.num_hits == first.sum() >= 3
  assert by_text.num_misses == (~first).sum() >= 3
  assert (len(by_text.hits), len(by_text.misses)) == (3, 3)
  for example in (*by_text.hits, *by_text.misses):
    assert example.is_hit == first[example.query]
    own = similarity[owner[example.query], example.query]
    assert positions(example.right) == [1 + (similarity[:, example.query] > own).sum()]

  for example in (*by_image.hits, *by_image.misses):
    assert [right.row for right in sorted(example.right, key=lambda right: right.row)] == [
      3 * example.query + offset for offset in range(3)
    ]
    assert example.best[0].row == similarity[example.query].argmax()
  assert by_image.num_hits + by_image.num_misses == 23


def test_where_there_are_no_mistakes_more_hits_are_shown():
  images = unit_rows(11)
  by_text, by_image = choose_examples(DotScores(images, images.copy()), np.arange(11))
  for examples in (by_text, by_image):
    assert (len(examples.hits), len(examples.misses)) == (6, 0)
    assert (examples.num_hits, examples.num_misses) == (11, 0)


def test_a_model_that_scores_everything_the_same_has_no_hits():
  by_text, by_image = choose_examples(DotScores(np.ones((7, 5), np.float32), np.ones((7, 5), np.float32)), np.arange(7))
  assert by_text.num_hits == by_image.num_hits == 0
  assert all(example.right[0].position == 7 for example in (*by_text.misses, *by_image.misses))


def test_an_image_without_a_caption_is_no_query_but_a_candidate():
  images = unit_rows(7)
  owner = np.array([6, 0, 2])
  by_text, by_image = choose_examples(DotScores(images, images[owner]), owner)
  assert [example.query for example in by_image.hits] == [0, 2, 6]
  assert by_text.hits[0].num_candidates == 7
  assert by_image.hits[0].num_candidates == 3


def test_the_same_arrays_give_the_same_examples():
  images, texts, owner = unit_rows(31), unit_rows(62, seed=2), np.repeat(np.arange(31), 2)
  assert choose_examples(DotScores(images, texts), owner) == choose_examples(DotScores(images, texts), owner)
