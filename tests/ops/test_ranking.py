"""Ranks and recall: golden numbers, the slow oracle, ties, and scores straight from embeddings."""

from pathlib import Path

import jaxtyping
import numpy as np
import oracle_ranking as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrem_jax.ops.ranking import (
  Ranks,
  hit_probability,
  mean_ranks,
  ranks_from_similarity,
  recall_metrics,
  retrieval_metrics,
)
from hrem_jax.ops.streamed_ranking import first_identical, ranks_from_embeddings
from hrem_jax.retrieval.scores import ChanceScores

GOLDEN = np.load(Path(__file__).parents[1] / 'golden' / 'metrics.npz')
TIES = ('optimistic', 'expected', 'pessimistic')
RECALLS = ('r1', 'r5', 'r10')
USUAL = np.arange(250) // 5


@pytest.fixture
def in_production(monkeypatch):
  """Without the shape checks of the test run, which would speak before our own messages."""
  monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


def assert_same_ranks(found, expected):
  for one, other in zip(found, expected, strict=True):
    for count, reference in zip(one, other, strict=True):
      assert count.shape == reference.shape
      np.testing.assert_array_equal(count, reference)


def assert_metrics(found, expected, rtol=1e-12):
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=rtol, abs=1e-12), key


def ragged_owner(rng, num_images, num_texts):
  """Any order, any number of texts, and at least one image without."""
  return rng.integers(0, num_images - 1, size=num_texts)


def tied_embeddings(rng, num_images, num_texts, dim=7):
  """Small whole numbers: products are exact in any order, ties are heavy, and some rows are identical."""
  images = rng.integers(-1, 2, size=(num_images, dim)).astype(np.float32)
  texts = rng.integers(-1, 2, size=(num_texts, dim)).astype(np.float32)
  images[num_images // 2] = images[0]
  texts[rng.integers(0, num_texts, size=num_texts // 3)] = texts[num_texts - 1]
  return images, texts


# --- golden -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('ties', TIES)
def test_without_ties_we_equal_the_release(ties):
  found = retrieval_metrics(ranks_from_similarity(GOLDEN['rand_f32/sims'], USUAL), ties=ties)
  for direction in ('i2t', 't2i'):
    values = [found[f'{direction}/{key}'] for key in (*RECALLS, 'median_rank', 'mean_rank')]
    np.testing.assert_allclose(values, GOLDEN[f'rand_f32/{direction}_metrics'], rtol=1e-12)


@pytest.mark.parametrize('name', ['rand_f32', 'tie1_f32'])
def test_rank_bounds_of_the_release(name):
  ranks = ranks_from_similarity(GOLDEN[f'{name}/sims'], USUAL)
  images, texts = ranks
  assert images.greater.shape == (50,)
  assert texts.greater.shape == (250,)
  np.testing.assert_array_equal(mean_ranks(images, ties='optimistic'), GOLDEN[f'{name}/i2t_rank_lo'])
  np.testing.assert_array_equal(mean_ranks(texts, ties='optimistic'), GOLDEN[f'{name}/t2i_rank_lo'])
  np.testing.assert_array_equal(mean_ranks(texts, ties='pessimistic'), GOLDEN[f'{name}/t2i_rank_hi'])
  # The release's upper bound also counts the image's own captions that are level with its best one.
  own_level = images.tied_positives - 1
  np.testing.assert_array_equal(mean_ranks(images, ties='pessimistic') + own_level, GOLDEN[f'{name}/i2t_rank_hi'])


def test_the_release_breaks_ties_somewhere_between_the_rules():
  ranks = ranks_from_similarity(GOLDEN['tie1_f32/sims'], USUAL)
  low, high = (retrieval_metrics(ranks, ties=ties) for ties in ('pessimistic', 'optimistic'))
  for direction in ('i2t', 't2i'):
    for key, value in zip(RECALLS, GOLDEN[f'tie1_f32/{direction}_metrics'], strict=False):
      assert low[f'{direction}/{key}'] <= value <= high[f'{direction}/{key}']
  assert low['t2i/r1'] < retrieval_metrics(ranks)['t2i/r1'] < high['t2i/r1']


# --- by hand and against the oracle -----------------------------------------------------------------------------------


def test_three_by_three_by_hand():
  # The example worked in the docstring of hrem_jax.ops.ranking.
  ranks = ranks_from_similarity(np.array([[2.0, 1, 1], [3, 3, 1], [4, 4, 4]]), np.arange(3))
  np.testing.assert_array_equal(ranks.image_to_text.tied_negatives, [0, 1, 2])
  np.testing.assert_array_equal(mean_ranks(ranks.image_to_text), [0, 0.5, 1])
  np.testing.assert_array_equal(mean_ranks(ranks.text_to_image), [2, 1, 0])
  metrics = retrieval_metrics(ranks)
  assert metrics['i2t/r1'] == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
  assert metrics['i2t/r5'] == 100.0
  assert metrics['i2t/median_rank'] == 1.0  # floor(0.5) + 1
  assert metrics['i2t/mean_rank'] == 1.5
  assert metrics['t2i/median_rank'] == 2.0
  assert retrieval_metrics(ranks, ties='pessimistic')['i2t/r1'] == pytest.approx(100 / 3)
  assert retrieval_metrics(ranks, ties='optimistic')['i2t/r1'] == 100.0


@pytest.mark.parametrize('ties', TIES)
@pytest.mark.parametrize('seed', range(7))
def test_equals_the_oracle_with_heavy_ties_and_ragged_owners(seed, ties):
  rng = np.random.default_rng(seed)
  num_images, num_texts = 5, 17
  similarity = rng.integers(0, 4, size=(num_images, num_texts)).astype(np.float32)
  owner = ragged_owner(rng, num_images, num_texts)
  found = retrieval_metrics(ranks_from_similarity(similarity, owner), ties=ties)
  assert_metrics(found, oracle.metrics_of(similarity.tolist(), owner.tolist(), ties))


@pytest.mark.parametrize('seed', range(3))
def test_expectation_is_the_mean_over_random_orders(seed):
  """Equal scores are ordered at random 4,000 times; the exact expectation stands within five standard errors."""
  rng = np.random.default_rng(seed)
  num_images, num_texts, num_orders = 5, 23, 4000
  similarity = rng.integers(0, 3, size=(num_images, num_texts)).astype(np.float64)
  owner = ragged_owner(rng, num_images, num_texts)
  drawn = []
  for _ in range(num_orders):
    ordered = similarity + rng.uniform(0, 0.5, size=similarity.shape)  # no two scores stay equal
    drawn.append(list(retrieval_metrics(ranks_from_similarity(ordered, owner)).values()))
  drawn = np.array(drawn)
  expected = retrieval_metrics(ranks_from_similarity(similarity, owner))
  for column, (key, value) in zip(drawn.T, expected.items(), strict=True):
    if 'median' not in key:  # the median of expected ranks is no expectation
      assert abs(column.mean() - value) <= 5 * column.std() / np.sqrt(num_orders) + 1e-9, key


def test_several_tied_captions_are_hypergeometric():
  # 2 negatives above, then 3 negatives level with 2 captions: the first caption is 4th..6th in 4/10, 3/10, 2/10, 1/10.
  ranks = Ranks(np.array([2]), np.array([3]), np.array([2]))
  np.testing.assert_allclose([hit_probability(ranks, k)[0] for k in (1, 2, 3, 4, 5, 6)], [0, 0, 0.4, 0.7, 0.9, 1.0])
  assert mean_ranks(ranks)[0] == 3.0


def test_median_of_fractions_is_floored_exactly():
  # Expected ranks 1/3 and 5/3: their mean is exactly 1 and must not fall short of it in floats.
  ranks = Ranks(np.array([0, 1]), np.array([1, 2]), np.array([2, 2]))
  assert recall_metrics(ranks)['median_rank'] == 2.0
  ranks = Ranks(np.array([0] * 2), np.array([1, 13]), np.array([6, 6]))  # 1/7 and 13/7
  assert recall_metrics(ranks)['median_rank'] == 2.0


def test_own_captions_are_no_competitors():
  # Image 0 owns three captions: one best, one level with it, one below but above the negatives.
  similarity = np.array([[5.0, 5, 4, 3, 1], [0, 0, 0, 0, 9]])
  ranks = ranks_from_similarity(similarity, np.array([0, 0, 0, 1, 1]))
  np.testing.assert_array_equal(ranks.image_to_text.greater, [0, 0])
  np.testing.assert_array_equal(ranks.image_to_text.tied_negatives, [0, 0])
  np.testing.assert_array_equal(ranks.image_to_text.tied_positives, [2, 1])
  assert retrieval_metrics(ranks, ties='pessimistic')['i2t/r1'] == 100.0


def test_image_without_captions_is_a_candidate_only():
  similarity = np.array([[2.0, 1], [9, 9], [0, 3]])
  ranks = ranks_from_similarity(similarity, np.array([0, 2]))
  assert ranks.image_to_text.greater.shape == (2,)
  np.testing.assert_array_equal(ranks.text_to_image.greater, [1, 1])


@pytest.mark.parametrize('scores', [0.0, 1.0, -3.5])
def test_a_constant_model_gets_chance(scores):
  owner = np.arange(65) // 5
  constant = ranks_from_similarity(np.full((13, 65), scores, dtype=np.float32), owner)
  assert_same_ranks(constant, ChanceScores((13, len(owner))).ranks(owner))
  embeddings = ranks_from_embeddings(np.ones((13, 3)), np.ones((65, 3)), owner, chunk=4)
  assert_same_ranks(embeddings, ChanceScores((13, len(owner))).ranks(owner))
  metrics = retrieval_metrics(constant)
  assert metrics['t2i/r1'] == pytest.approx(100 / 13)
  assert metrics['i2t/r1'] == pytest.approx(100 / 13)
  assert metrics['t2i/mean_rank'] == 7.0
  assert retrieval_metrics(constant, ties='pessimistic')['rsum'] == 0.0 + 0.0


def test_chance_with_ragged_owners_equals_constant_scores():
  owner = ragged_owner(np.random.default_rng(0), 11, 31)
  assert_same_ranks(ranks_from_similarity(np.zeros((11, 31)), owner), ChanceScores((11, len(owner))).ranks(owner))


# --- embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('chunk', [1, 2, 5, 7, 100])
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_embeddings_equal_the_full_matrix_for_every_chunk(chunk, dtype):
  rng = np.random.default_rng(1)
  images, texts = tied_embeddings(rng, 19, 67)
  owner = ragged_owner(rng, 19, 67)
  found = ranks_from_embeddings(images.astype(dtype), texts.astype(dtype), owner, chunk=chunk)
  assert_same_ranks(found, ranks_from_similarity(images @ texts.T, owner))


@pytest.mark.parametrize('ties', TIES)
def test_embeddings_equal_the_oracle(ties):
  rng = np.random.default_rng(2)
  images, texts = tied_embeddings(rng, 7, 23, dim=3)
  owner = ragged_owner(rng, 7, 23)
  similarity = oracle.similarity_of(images.tolist(), texts.tolist())
  found = retrieval_metrics(ranks_from_embeddings(images, texts, owner, chunk=3), ties=ties)
  assert_metrics(found, oracle.metrics_of(similarity, owner.tolist(), ties))


@pytest.mark.parametrize('dim', [13, 101, 1009])
@pytest.mark.parametrize('num_images', [29, 83])
def test_identical_embeddings_tie_wherever_they_stand(num_images, dim):
  """BLAS rounds by position (edge kernels); a copy of every text and image must tie all the same."""
  rng = np.random.default_rng(3)
  base_images, base_texts = rng.normal(size=(num_images, dim)), rng.normal(size=(3 * num_images, dim))
  images = np.concatenate([base_images, base_images]).astype(np.float32)
  texts = np.concatenate([base_texts, base_texts]).astype(np.float32)
  owner = np.concatenate([np.arange(3 * num_images) // 3] * 2)
  owner[3 * num_images :] += num_images
  order, rows = rng.permutation(len(texts)), rng.permutation(len(images))
  texts, owner, images = texts[order], np.argsort(rows)[owner[order]], images[rows]
  for chunk in (1, 3, 16, 64, 500):
    ranks = ranks_from_embeddings(images, texts, owner, chunk=chunk)
    np.testing.assert_array_equal(ranks.text_to_image.tied_negatives, 1)
    np.testing.assert_array_equal(ranks.image_to_text.tied_negatives, 1)
    np.testing.assert_array_equal(ranks.image_to_text.tied_positives, 1)
    np.testing.assert_array_equal(ranks.text_to_image.greater % 2, 0)  # every competitor comes twice
    np.testing.assert_array_equal(ranks.image_to_text.greater % 2, 0)


@pytest.mark.parametrize('dim', [13, 101, 1009])
def test_captions_shared_by_different_images_tie(dim):
  """The copy of each caption belongs to another image, far away: its own score and the competitor's are one number."""
  rng = np.random.default_rng(7)
  num_images, base = 61, rng.normal(size=(61, dim)).astype(np.float32)
  base /= np.linalg.norm(base, axis=1, keepdims=True)
  texts = np.concatenate([base, base])
  images = (base + 0.1 / np.sqrt(dim) * rng.normal(size=base.shape)).astype(np.float32)
  owner = np.concatenate([np.arange(num_images), np.roll(np.arange(num_images), 30)])
  order = rng.permutation(len(texts))
  for chunk in (1, 2, 7, 64):
    for columns in (np.argsort(owner, kind='stable'), order):
      images_asked, texts_asked = ranks_from_embeddings(images, texts[columns], owner[columns], chunk=chunk)
      np.testing.assert_array_equal(images_asked.greater, 0)
      np.testing.assert_array_equal(images_asked.tied_negatives, 1)
      np.testing.assert_array_equal(images_asked.tied_positives, 1)
      np.testing.assert_array_equal(texts_asked.tied_negatives, 0)


def test_a_caption_that_also_describes_another_image_is_half_a_hit():
  rng = np.random.default_rng(4)
  images = rng.normal(size=(53, 101)).astype(np.float32)
  texts = images[np.arange(53 * 5) // 5] + 0.0
  texts[1:5] = texts[6:10] = -texts[0]  # of images 0 and 1 only the first captions fit
  images[1], texts[5] = images[0], texts[0]
  for chunk in (1, 7, 53):
    images_asked = ranks_from_embeddings(images, texts, np.arange(53 * 5) // 5, chunk=chunk).image_to_text
    np.testing.assert_array_equal(hit_probability(images_asked, 1)[:3], [0.5, 0.5, 1.0])


@pytest.mark.parametrize('grouped', [True, False])
def test_permuting_images_and_texts_changes_nothing(grouped):
  rng = np.random.default_rng(5)
  num_images, num_texts = 37, 151
  images, texts = tied_embeddings(rng, num_images, num_texts)
  owner = ragged_owner(rng, num_images, num_texts)
  owner = np.sort(owner) if grouped else owner
  reference = ranks_from_embeddings(images, texts, owner, chunk=11)
  rows, columns = rng.permutation(num_images), rng.permutation(num_texts)
  moved = ranks_from_embeddings(images[rows], texts[columns], np.argsort(rows)[owner[columns]], chunk=11)
  np.testing.assert_array_equal(moved.text_to_image, np.asarray(reference.text_to_image)[:, columns])
  for ties in TIES:
    assert retrieval_metrics(moved, ties=ties) == retrieval_metrics(reference, ties=ties)


def test_more_rows_than_a_byte_can_count():
  owner = np.zeros(2, dtype=int)
  similarity = np.full((613, 2), 2.0)
  similarity[0] = [1, 2]
  ranks = ranks_from_similarity(similarity, owner)
  np.testing.assert_array_equal(ranks.text_to_image.greater, [612, 0])
  np.testing.assert_array_equal(ranks.text_to_image.tied_negatives, [0, 612])


def test_first_identical_finds_equal_rows_only():
  rows = np.array([[0.0, 1], [1, 2], [-0.0, 1], [0, 2], [1, 2]], dtype=np.float32)
  np.testing.assert_array_equal(first_identical(rows), [0, 1, 0, 3, 1])


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_raise_and_name_the_pair(value):
  rng = np.random.default_rng(6)
  similarity = rng.normal(size=(7, 35))
  similarity[3, 11] = value
  with pytest.raises(FloatingPointError, match='image 3 and text 11 is'):
    ranks_from_similarity(similarity, np.arange(35) // 5)
  for order in (np.arange(35), rng.permutation(35)):
    images, texts = np.ones((7, 2)), rng.uniform(1, 2, size=(35, 2))
    texts[order == 11] = value
    with pytest.raises(FloatingPointError, match=f'image 0 and text {np.argmax(order == 11)} is'):
      ranks_from_embeddings(images, texts, order // 5, chunk=3)


def test_overflow_of_finite_embeddings_raises():
  images = np.full((3, 2), 3e38, dtype=np.float32)
  with pytest.raises(FloatingPointError, match='is inf'):
    ranks_from_embeddings(images, images, np.arange(3))


@pytest.mark.parametrize(
  ('owner', 'message'),
  [([0, 1, 3], r'0\.\.2, found 0\.\.3'), ([0, -1, 2], 'found -1'), ([0, 1], '3 integers'), ([0.0, 1, 2], '3 integers')],
)
def test_bad_owners_raise(in_production, owner, message):
  with pytest.raises(ValueError, match=message):
    ranks_from_similarity(np.eye(3), np.array(owner))
  with pytest.raises(ValueError, match=message):
    ranks_from_embeddings(np.eye(3), np.eye(3), np.array(owner))


def test_bad_shapes_and_options_raise(in_production):
  owner = np.arange(3)
  with pytest.raises(ValueError, match='one width'):
    ranks_from_embeddings(np.ones((3, 2)), np.ones((3, 5)), owner)
  with pytest.raises(ValueError, match='chunk'):
    ranks_from_embeddings(np.eye(3), np.eye(3), owner, chunk=0)
  with pytest.raises(ValueError, match='images and texts'):
    ranks_from_similarity(np.ones((3, 0)), np.zeros(0, dtype=int))
  with pytest.raises(ValueError, match='images x texts'):
    ranks_from_similarity(np.ones(3), owner)
  with pytest.raises(ValueError, match=r"\['expected', 'optimistic', 'pessimistic'\], found 'lucky'"):
    retrieval_metrics(ranks_from_similarity(np.eye(3), owner), ties='lucky')


# --- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  num_images=st.integers(1, 13),
  num_texts=st.integers(1, 31),
  num_levels=st.integers(1, 5),
  chunk=st.integers(1, 17),
  seed=st.integers(0, 2**31),
)
def test_rules_are_ordered_and_metrics_stay_in_range(num_images, num_texts, num_levels, chunk, seed):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, num_levels, size=(num_images, 2)).astype(np.float32)
  texts = rng.integers(0, num_levels, size=(num_texts, 2)).astype(np.float32)
  owner = rng.integers(0, num_images, size=num_texts)
  ranks = ranks_from_embeddings(images, texts, owner, chunk=chunk)
  assert_same_ranks(ranks, ranks_from_similarity(images @ texts.T, owner))
  best, mean, worst = (retrieval_metrics(ranks, ties=ties) for ties in TIES)
  for key in mean:
    low, high = (best, worst) if 'rank' in key else (worst, best)
    assert low[key] <= mean[key] + 1e-9, key
    assert mean[key] <= high[key] + 1e-9, key
    largest = {'rsum': 600.0, 'i2t/mean_rank': num_texts, 'i2t/median_rank': num_texts}
    largest |= {'t2i/mean_rank': num_images, 't2i/median_rank': num_images}
    assert 0.0 <= mean[key] <= largest.get(key, 100.0) + 1e-9
