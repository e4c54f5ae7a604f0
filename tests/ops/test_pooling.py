"""Pooling and norms: the slow oracle, its finite differences, padding and degenerate inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import assert_close

from hrem_jax.ops.pooling import l2_normalize, masked_mean, pool_fragments, safe_norm, top_k_mean

SIZE, FRAGMENTS, CHANNELS = 5, 7, 3
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}
GRADIENT_TOLERANCE = 1e-8  # of the finite differences
compiled_top_k_mean = jax.jit(top_k_mean, static_argnames='top_k')


def ragged_mask():
  """All real, all but some in the middle, two, one, none."""
  mask = np.zeros((SIZE, FRAGMENTS), bool)
  mask[0] = True
  mask[1, [0, 2, 3, 6]] = True
  mask[2, :2] = True
  mask[3, 4] = True
  return mask


def some_fragments(seed=0, dtype=np.float64):
  """Two sets of fragments; the first has channels with negative values only."""
  rng = np.random.default_rng(seed)
  fragments, related = rng.normal(size=(2, SIZE, FRAGMENTS, CHANNELS)).astype(dtype)
  fragments[..., 1] = -np.abs(fragments[..., 1])
  return fragments, related


# --- norms ------------------------------------------------------------------------------------------------------------


def test_norms_equal_the_oracle(dtype):
  x = np.random.default_rng(1).normal(size=(SIZE, CHANNELS)).astype(dtype)
  x[2] = 0
  x[3] *= 1e-6  # here the epsilon of the norm is seen
  norms = [oracle.norm(row) for row in x]
  assert_close(safe_norm(jnp.asarray(x)), norms, rtol=TOLERANCE[dtype])
  assert_close(safe_norm(jnp.asarray(x.T), axis=0), norms, rtol=TOLERANCE[dtype])
  assert_close(safe_norm(jnp.asarray(x), keepdims=True), np.reshape(norms, (SIZE, 1)), rtol=TOLERANCE[dtype])
  found = l2_normalize(jnp.asarray(x))
  assert found.dtype == dtype
  assert_close(found, oracle.l2_normalize(x), rtol=TOLERANCE[dtype])
  assert_close(l2_normalize(jnp.asarray(x.T), axis=0), oracle.l2_normalize(x).T, rtol=TOLERANCE[dtype])
  assert not np.any(found[2])


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
  ('function', 'reference'),
  [(l2_normalize, oracle.l2_normalize), (safe_norm, lambda rows: np.array([oracle.norm(row) for row in rows]))],
  ids=['l2_normalize', 'safe_norm'],
)
def test_gradients_of_norms_equal_finite_differences(function, reference):
  rng = np.random.default_rng(2)
  x = rng.normal(size=(SIZE, CHANNELS))
  weight = rng.normal(size=reference(x).shape)
  found = jax.jit(jax.grad(lambda x: jnp.sum(function(x) * weight)))(jnp.asarray(x))
  assert_close(found, oracle.numerical_gradient(lambda x: np.sum(reference(x) * weight), x), atol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize('tiny', [0.0, 1e-30, 1e-12])
def test_norms_are_finite_forward_and_backward_at_and_near_zero(tiny):
  x = jnp.full((SIZE, CHANNELS), tiny, jnp.float32)
  value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(safe_norm(x))))(x)
  assert np.isfinite(value)
  assert np.all(np.abs(gradient) <= 1.0)
  if tiny == 0:
    assert not np.any(gradient)
  value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(l2_normalize(x))))(x)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_l2_normalize_keeps_the_dtype():
  assert l2_normalize(jnp.ones((SIZE, CHANNELS), jnp.bfloat16)).dtype == jnp.bfloat16


# --- pooling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('top_k', [1, 2, 5, 11])
def test_top_k_mean_equals_the_oracle_with_fewer_fragments_too(dtype, top_k):
  fragments, _ = some_fragments(dtype=dtype)
  found = compiled_top_k_mean(jnp.asarray(fragments), jnp.asarray(ragged_mask()), top_k=top_k)
  assert found.dtype == dtype
  assert_close(found, oracle.top_k_mean(fragments, ragged_mask(), top_k), atol=TOLERANCE[dtype])


def test_means_equal_the_oracle(dtype):
  fragments, related = some_fragments(dtype=dtype)
  mask = ragged_mask()
  arguments = jnp.asarray(fragments), jnp.asarray(related), jnp.asarray(mask)
  assert_close(masked_mean(arguments[1], arguments[2]), oracle.masked_mean(related, mask), atol=TOLERANCE[dtype])
  expected = oracle.pool_fragments(fragments, related, mask)
  found = pool_fragments(*arguments)
  assert found.dtype == dtype
  assert_close(found, expected, atol=TOLERANCE[dtype])
  assert_close(jax.jit(pool_fragments)(*arguments), expected, atol=TOLERANCE[dtype])
  expected = oracle.pool_fragments(fragments, related, mask, residual_weight=0.3)
  assert_close(pool_fragments(*arguments, residual_weight=0.3), expected, atol=TOLERANCE[dtype])


def test_pooling_of_one_instance_worked_by_hand():
  # Channel 0 before the graph: 4, 1, 3 (8 is padding): (4 + 3) / 2 = 3.5; after it: 1, 2, 6: mean 3.
  # Channel 1 before the graph: -5, -1, -2:            (-1 - 2) / 2 = -1.5; after it: 0, 0, 9: mean 3.
  # 0.8 * 3.5 + 0.2 * 3 = 3.4;  0.8 * -1.5 + 0.2 * 3 = -0.6
  fragments = jnp.array([[[4.0, -5.0], [1.0, -1.0], [3.0, -2.0], [8.0, 8.0]]] * 2)
  related = jnp.array([[[1.0, 0.0], [2.0, 0.0], [6.0, 9.0], [8.0, 8.0]]] * 2)
  mask = jnp.array([[True, True, True, False]] * 2)
  assert_close(pool_fragments(fragments, related, mask), [[3.4, -0.6]] * 2, rtol=1e-6)


@pytest.mark.usefixtures('x64')
def test_gradients_of_pooling_equal_finite_differences():
  fragments, related = some_fragments(seed=3)
  mask = ragged_mask()
  weight = np.random.default_rng(4).normal(size=(SIZE, CHANNELS))

  def ours(fragments, related):
    return jnp.sum(pool_fragments(fragments, related, jnp.asarray(mask)) * weight)

  def reference(fragments, related):
    return np.sum(oracle.pool_fragments(fragments, related, mask) * weight)

  found = jax.jit(jax.grad(ours, argnums=(0, 1)))(jnp.asarray(fragments), jnp.asarray(related))
  assert_close(found[0], oracle.numerical_gradient(lambda x: reference(x, related), fragments), atol=GRADIENT_TOLERANCE)
  assert_close(found[1], oracle.numerical_gradient(lambda x: reference(fragments, x), related), atol=GRADIENT_TOLERANCE)


@jax.jit
def gradients_and_pooled(fragments, related, mask):
  weight = jnp.arange(SIZE * CHANNELS, dtype=fragments.dtype).reshape(SIZE, CHANNELS) - 4.5

  def weighted(fragments, related):
    pooled = pool_fragments(fragments, related, mask)
    return jnp.sum(pooled * weight), pooled

  return jax.grad(weighted, argnums=(0, 1), has_aux=True)(fragments, related)


@pytest.mark.parametrize('junk', [1e30, -1e30, np.nan, np.inf], ids=str)
def test_junk_in_padding_changes_neither_values_nor_gradients(junk):
  fragments, related = some_fragments(dtype=np.float32)
  mask = ragged_mask()
  clean, clean_pooled = gradients_and_pooled(fragments, related, mask)
  fragments[~mask], related[~mask] = junk, junk
  dirty, dirty_pooled = gradients_and_pooled(fragments, related, mask)
  np.testing.assert_array_equal(clean_pooled, dirty_pooled)
  for one, other in zip(clean, dirty, strict=True):
    assert np.any(one)
    assert not np.any(np.asarray(other)[~mask])
    np.testing.assert_array_equal(one, other)


def test_appended_padding_changes_nothing():
  fragments, related = (jnp.asarray(x) for x in some_fragments(dtype=np.float32))
  mask = jnp.asarray(ragged_mask())
  longer = [jnp.pad(x, ((0, 0), (0, 4), (0, 0)), constant_values=9.0) for x in (fragments, related)]
  found = pool_fragments(*longer, jnp.pad(mask, ((0, 0), (0, 4))))
  assert_close(found, pool_fragments(fragments, related, mask), rtol=1e-6, atol=1e-7)


def test_order_of_the_batch_is_kept_and_order_of_fragments_does_not_matter():
  fragments, related = some_fragments(dtype=np.float32)
  mask = ragged_mask()
  expected = np.asarray(pool_fragments(jnp.asarray(fragments), jnp.asarray(related), jnp.asarray(mask)))
  order, places = np.array([3, 0, 4, 2, 1]), np.array([6, 2, 0, 5, 1, 4, 3])
  found = pool_fragments(jnp.asarray(fragments[order]), jnp.asarray(related[order]), jnp.asarray(mask[order]))
  assert_close(found, expected[order], rtol=1e-6)
  shuffled = (jnp.asarray(x[:, places]) for x in (fragments, related, mask))
  assert_close(pool_fragments(*shuffled), expected, rtol=1e-6, atol=1e-7)


def test_instance_without_real_fragments_is_zero_with_zero_gradient():
  fragments, related = (jnp.asarray(x) for x in some_fragments(dtype=np.float32))
  mask = jnp.asarray(ragged_mask())
  pooled = pool_fragments(fragments, related, mask)
  assert pooled.shape == (SIZE, CHANNELS)
  assert not np.any(pooled[-1])
  assert np.all(np.any(pooled[:-1], axis=1))
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(l2_normalize(pool_fragments(x, related, mask))[:, 0])))(fragments)
  assert np.all(np.isfinite(gradient))
  assert not np.any(gradient[-1])
  assert np.any(gradient[0])


def test_identical_fragments_share_the_gradient_of_the_largest():
  fragments = jnp.ones((SIZE, FRAGMENTS, CHANNELS))
  mask = jnp.asarray(ragged_mask())
  value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(top_k_mean(x, mask))))(fragments)
  assert value == (SIZE - 1) * CHANNELS
  assert_close(jnp.sum(gradient, axis=1), [[1.0] * CHANNELS] * (SIZE - 1) + [[0.0] * CHANNELS], rtol=1e-6)
