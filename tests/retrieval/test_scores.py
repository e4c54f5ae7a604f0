"""Every kind of scores: the same ranks and blocks as a plain matrix, exact ties, parts, means."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax.ops.ranking import ranks_from_similarity
from hrem_jax.retrieval.scores import ChanceScores, DotScores, MatrixScores, mean_scores

OWNER = np.random.default_rng(5).integers(0, 11, 29)


@pytest.fixture
def embeddings():
  """Small whole numbers: products are exact, and many pairs tie."""
  rng = np.random.default_rng(0)
  return rng.integers(-2, 3, (11, 3)).astype(np.float32), rng.integers(-2, 3, (29, 3)).astype(np.float32)


@pytest.fixture(params=['dots', 'matrix', 'file', 'repeated columns', 'chance', 'mean'])
def kind(request, embeddings, tmp_path):
  """Scores of a kind and the matrix that they stand for."""
  images, texts = embeddings
  similarity = images @ texts.T
  if request.param == 'dots':
    return DotScores(images, texts), similarity
  if request.param == 'matrix':
    return MatrixScores(similarity), similarity
  if request.param == 'file':
    np.save(tmp_path / 'matrix.npy', similarity.astype(np.float16))
    return MatrixScores(np.load(tmp_path / 'matrix.npy', mmap_mode='r')), similarity
  if request.param == 'repeated columns':
    columns = np.random.default_rng(1).integers(0, 29, 29)
    return MatrixScores(similarity, texts=columns), similarity[:, columns]
  if request.param == 'chance':
    return ChanceScores((11, 29)), np.zeros((11, 29), np.float32)
  return mean_scores([DotScores(images, texts), MatrixScores(3 * similarity)]), 2 * similarity


def assert_same(found, similarity, owner):
  for ours, expected in zip(found.ranks(owner, chunk=4), ranks_from_similarity(similarity, owner), strict=True):
    for ours_, expected_ in zip(ours, expected, strict=True):
      assert_array_equal(ours_, expected_)


def test_ranks_are_those_of_the_matrix(kind):
  scores, similarity = kind
  assert scores.shape == (11, 29)
  assert_same(scores, similarity, OWNER)


def test_blocks_are_those_of_the_matrix(kind):
  scores, similarity = kind
  for side, matrix in (('images', similarity), ('texts', similarity.T)):
    queries = np.array([7, 2, 2, 10, 5])
    blocks = list(scores.blocks(queries, side=side, chunk=2))
    assert [rows for rows, _ in blocks] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert_array_equal(np.concatenate([block for _, block in blocks]), matrix[queries])
    assert not list(scores.blocks(queries[:0], side=side))


def test_a_part_of_a_part(kind):
  scores, similarity = kind
  rows, columns = np.array([9, 0, 4, 7, 3]), np.random.default_rng(2).permutation(29)[:13]
  some, owner = scores.part(rows, columns), np.arange(13) % 5
  assert_same(some, similarity[np.ix_(rows, columns)], owner)
  assert_same(some.part(slice(1, 4)), similarity[np.ix_(rows[1:4], columns)], owner % 3)
  is_kept = owner != 2
  assert_same(some.part(texts=is_kept), similarity[np.ix_(rows, columns[is_kept])], owner[is_kept])


def test_a_score_that_is_not_finite_is_named():
  similarity = np.zeros((3, 5), np.float32)
  similarity[1, 4] = np.nan
  scores = MatrixScores(similarity)
  with pytest.raises(FloatingPointError, match='image 1 and text 4 is nan'):
    scores.ranks(np.arange(5) % 3)
  with pytest.raises(FloatingPointError, match='the score of query 1 and candidate 4 is NaN or infinite'):
    list(scores.blocks(np.array([0, 1]), side='images'))
  with pytest.raises(FloatingPointError, match='the score of query 4 and candidate 1 is NaN or infinite'):
    list(scores.blocks(np.array([3, 4]), side='texts'))


def test_the_mean_of_dots_is_one_product_and_that_of_others_a_matrix():
  rng = np.random.default_rng(3)
  members = [DotScores(rng.normal(size=(7, d)), rng.normal(size=(17, d))) for d in (3, 5)]
  expected = sum(member.images @ member.texts.T for member in members) / 2
  assert mean_scores(members[:1]) is members[0]
  both = mean_scores(members)
  assert isinstance(both, DotScores)
  assert_allclose(both.images @ both.texts.T, expected)
  mixed = mean_scores([members[0], MatrixScores(members[1].images @ members[1].texts.T)])
  assert_allclose(next(mixed.blocks(np.arange(7), side='images'))[1], expected, rtol=1e-6)
  with pytest.raises(ValueError, match=r'different shapes: \[\(7, 16\), \(7, 17\)\]'):
    mean_scores([members[0], ChanceScores((7, 16))])
