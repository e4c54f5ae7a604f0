"""Metrics against the slow oracle for any scores: ties everywhere, images with any number of texts, numbers that are
none."""

import numpy as np
import oracle_ranking as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrem_jax.ops.ranking import ranks_from_similarity, retrieval_metrics
from hrem_jax.ops.streamed_ranking import ranks_from_embeddings

RULES = st.sampled_from(['expected', 'pessimistic', 'optimistic'])


@st.composite
def scores_and_owners(draw):
  """Few levels, so that nearly everything ties; images without a text and with many."""
  num_images, num_texts = draw(st.integers(1, 6)), draw(st.integers(1, 9))
  level = st.integers(-2, 2).map(float)
  similarity = [draw(st.lists(level, min_size=num_texts, max_size=num_texts)) for _ in range(num_images)]
  owner = draw(st.lists(st.integers(0, num_images - 1), min_size=num_texts, max_size=num_texts))
  return np.array(similarity, np.float32), np.array(owner)


@settings(max_examples=80, deadline=None)
@given(drawn=scores_and_owners(), ties=RULES)
def test_any_scores_have_the_oracles_metrics(drawn, ties):
  similarity, owner = drawn
  found = retrieval_metrics(ranks_from_similarity(similarity, owner), ties=ties)
  expected = oracle.metrics_of(similarity.tolist(), owner.tolist(), ties)
  assert found.keys() == expected.keys()
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-12), key


@settings(max_examples=60, deadline=None)
@given(drawn=scores_and_owners(), ties=RULES, chunk=st.integers(1, 7))
def test_any_embeddings_have_the_oracles_metrics(drawn, ties, chunk):
  """Texts are axes, so an image's embedding is its row of scores."""
  similarity, owner = drawn
  found = retrieval_metrics(
    ranks_from_embeddings(similarity, np.eye(len(owner), dtype=np.float32), owner, chunk=chunk), ties=ties
  )
  expected = oracle.metrics_of(similarity.tolist(), owner.tolist(), ties)
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-12), key


@settings(max_examples=40, deadline=None)
@given(drawn=scores_and_owners(), value=st.sampled_from([np.nan, np.inf, -np.inf]), data=st.data())
def test_a_number_that_is_none_is_named_wherever_it_stands(drawn, value, data):
  similarity, owner = drawn
  image, text = (data.draw(st.integers(0, size - 1)) for size in similarity.shape)
  similarity[image, text] = value
  with pytest.raises(FloatingPointError, match=f'the score of image {image} and text {text} is {value}'):
    ranks_from_similarity(similarity, owner)
