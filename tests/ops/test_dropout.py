"""Dropout: how often, how independent, and that its mean is the input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax.ops.dropout import LEVELS, dropout, keep_mask

ROWS, COLUMNS = 997, 211  # odd: the last half of a random word is thrown away
KEY = jax.random.key(0)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_each_number_is_kept_as_often_as_asked_and_scaled_by_it(rate):
  dropped = dropout(KEY, jnp.full((ROWS, COLUMNS), 3.0), rate)
  assert dropped.shape == (ROWS, COLUMNS)
  kept = dropped != 0
  # Five standard deviations.
  assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / kept.size) ** 0.5
  assert_allclose(dropped[kept], 3.0 / (1 - rate), rtol=1e-4)
  assert_allclose(dropped.mean(), 3.0, rtol=5 * (rate / (1 - rate) / kept.size) ** 0.5)


def test_the_two_halves_of_a_random_word_are_independent():
  keep = np.asarray(keep_mask(KEY, (ROWS, 2 * COLUMNS), LEVELS // 2))
  first, second = keep[:, ::2], keep[:, 1::2]
  for mask in (first, second, first ^ second):
    assert abs(mask.mean() - 0.5) < 5 * (0.25 / mask.size) ** 0.5


def test_the_mean_is_exact_for_the_probability_that_is_drawn():
  """16 bits cannot say 0.1: the scale is that of what they say."""
  rate, kept = 0.1, round(0.9 * LEVELS)
  dropped = dropout(KEY, jnp.ones((ROWS, COLUMNS), jnp.float32), rate)
  assert float(dropped.max()) == np.float32(LEVELS / kept)


def test_a_rate_of_zero_changes_nothing_and_types_stay():
  x = jnp.linspace(-1, 1, 14).reshape(2, 7)
  assert_array_equal(dropout(KEY, x, 0.0), x)
  assert dropout(KEY, x.astype(jnp.bfloat16), 0.3).dtype == jnp.bfloat16


def test_keys_differ_and_dropped_numbers_have_no_gradient():
  x = jnp.ones((ROWS, COLUMNS))
  first, second = (dropout(key, x, 0.4) for key in jax.random.split(KEY))
  assert 0.4 < float(jnp.mean((first != 0) != (second != 0))) < 0.56
  gradient = jax.grad(lambda x: dropout(KEY, x, 0.4).sum())(x)
  assert_array_equal(gradient, dropout(KEY, x, 0.4))
