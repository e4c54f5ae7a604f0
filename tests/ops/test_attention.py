"""Attention weights: the slow oracle, its finite differences, masks and biases."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import assert_close

from hrem_jax.ops.attention import attention_weights

SIZE, ASKERS, ASKED, HEADS, HEAD_SIZE = 2, 5, 7, 3, 11
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}
GRADIENT_TOLERANCE = 1e-8  # of the finite differences
compiled_weights = jax.jit(attention_weights)


def some_inputs(dtype=np.float64):
  """Query, key, mask (no row without anything to look at, one with a single column) and bias."""
  rng = np.random.default_rng(0)
  query = rng.normal(size=(SIZE, ASKERS, HEADS, HEAD_SIZE)).astype(dtype)
  key = rng.normal(size=(SIZE, ASKED, HEADS, HEAD_SIZE)).astype(dtype)
  mask = rng.random((SIZE, ASKERS, ASKED)) < 0.6
  mask[:, 1] = False
  mask[..., 4] = True
  return query, key, mask, 2 * rng.normal(size=(SIZE, ASKERS, ASKED)).astype(dtype)


@pytest.mark.parametrize('use_bias', [False, True], ids=['no_bias', 'bias'])
@pytest.mark.parametrize('use_mask', [False, True], ids=['no_mask', 'mask'])
def test_weights_equal_the_oracle_and_are_exactly_zero_where_masked(dtype, use_mask, use_bias):
  query, key, mask, bias = some_inputs(dtype)
  options = {'mask': mask if use_mask else None, 'bias': bias if use_bias else None}
  found = compiled_weights(jnp.asarray(query), jnp.asarray(key), **jax.tree.map(jnp.asarray, options))
  assert found.dtype == dtype
  assert_close(found, oracle.attention_weights(query, key, **options), atol=TOLERANCE[dtype])
  if use_mask:
    assert not np.any(np.asarray(found)[np.broadcast_to(~mask[:, None], found.shape)])


def test_mask_and_bias_of_one_row_or_one_batch_are_meant_for_all():
  query, key, mask, bias = some_inputs(np.float32)
  for shape in ((SIZE, 1, ASKED), (1, ASKERS, ASKED)):
    small_mask, small_bias = (x[: shape[0], -shape[1] :] for x in (mask, bias))
    assert small_mask.shape == shape
    everywhere = [np.broadcast_to(x, bias.shape) for x in (small_mask, small_bias)]
    found = compiled_weights(
      jnp.asarray(query), jnp.asarray(key), mask=jnp.asarray(small_mask), bias=jnp.asarray(small_bias)
    )
    assert_close(found, oracle.attention_weights(query, key, *everywhere), atol=TOLERANCE[np.float32])


@pytest.mark.usefixtures('x64')
def test_gradients_equal_finite_differences():
  query, key, mask, bias = some_inputs()
  weight = np.random.default_rng(1).normal(size=(SIZE, HEADS, ASKERS, ASKED))

  def ours(query, key, bias):
    return jnp.sum(attention_weights(query, key, mask=jnp.asarray(mask), bias=bias) * weight)

  def reference(query, key, bias):
    return np.sum(oracle.attention_weights(query, key, mask, bias) * weight)

  found = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(*(jnp.asarray(x) for x in (query, key, bias)))
  # One head and one dimension stand for the others: every entry of the oracle costs two runs of its loops.
  for position, x in enumerate((query[:, :, 1, :2], key[:, :, 1, :2], bias)):

    def of_part(part, position=position):
      whole = [query.copy(), key.copy(), bias.copy()]
      whole[position][(..., 1, slice(2)) if position < 2 else ...] = part
      return reference(*whole)

    part = found[position][..., 1, :2] if position < 2 else found[position]
    assert_close(part, oracle.numerical_gradient(of_part, x), atol=GRADIENT_TOLERANCE)


@jax.jit
def gradients_and_weights(query, key, mask, bias):
  def squares(query, key, bias):
    weights = attention_weights(query, key, mask=mask, bias=bias)
    return jnp.sum(weights**2), weights

  return jax.grad(squares, argnums=(0, 1, 2), has_aux=True)(query, key, bias)


def test_rows_sum_to_one_and_one_that_may_look_nowhere_is_uniform_with_finite_gradient():
  query, key, mask, bias = (jnp.asarray(x) for x in some_inputs(np.float32))
  mask = mask.at[1, 2].set(False)
  gradients, weights = gradients_and_weights(query, key, mask, bias)
  assert_close(jnp.sum(weights, axis=-1), np.ones((SIZE, HEADS, ASKERS)), rtol=1e-6)
  assert_close(weights[1, :, 2], np.full((HEADS, ASKED), 1 / ASKED), rtol=1e-6)
  for gradient in gradients:
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)


@pytest.mark.parametrize('junk', [1e30, -1e30])
def test_junk_where_masked_changes_neither_values_nor_gradients(junk):
  query, key, mask, bias = some_inputs(np.float32)
  mask[..., 2] = False  # a key that nobody may look at, as padding is
  clean, clean_weights = gradients_and_weights(query, key, mask, bias)
  key[:, 2] = junk
  bias[~mask] = junk
  dirty, dirty_weights = gradients_and_weights(query, key, mask, bias)
  assert_close(dirty_weights, clean_weights, atol=1e-7)
  for one, other in zip(dirty, clean, strict=True):
    assert np.any(other)
    assert_close(one, other, atol=1e-6)


def test_permuted_instances_permute_the_weights_and_appended_masked_ones_change_nothing():
  query, key, mask, bias = some_inputs(np.float32)
  expected = oracle.attention_weights(query, key, mask, bias)
  askers, asked = np.array([3, 1, 0, 4, 2]), np.array([6, 0, 3, 5, 1, 2, 4])
  found = compiled_weights(
    jnp.asarray(query[:, askers]),
    jnp.asarray(key[:, asked]),
    mask=jnp.asarray(mask[:, askers][..., asked]),
    bias=jnp.asarray(bias[:, askers][..., asked]),
  )
  assert_close(found, expected[:, :, askers][..., asked], atol=TOLERANCE[np.float32])
  more = 4
  found = compiled_weights(
    jnp.asarray(query),
    jnp.pad(key, ((0, 0), (0, more), (0, 0), (0, 0)), constant_values=50.0),
    mask=jnp.pad(mask, ((0, 0), (0, 0), (0, more))),
    bias=jnp.pad(bias, ((0, 0), (0, 0), (0, more)), constant_values=50.0),
  )
  assert_close(found[..., ASKED:], np.zeros((SIZE, HEADS, ASKERS, more)))
  assert_close(found[..., :ASKED], expected, atol=TOLERANCE[np.float32])


def test_half_precision_is_computed_in_float32_and_compiled_code_agrees():
  query, key, mask, bias = some_inputs(np.float32)
  query, key = (jnp.asarray(x, jnp.bfloat16) for x in (query, key))
  mask, bias = jnp.asarray(mask), jnp.asarray(bias)
  found = attention_weights(query, key, mask=mask, bias=bias)
  assert found.dtype == jnp.float32
  rounded = (np.asarray(x, np.float64) for x in (query, key))
  assert_close(found, oracle.attention_weights(*rounded, mask, bias), atol=TOLERANCE[np.float32])
  assert_close(compiled_weights(query, key, mask=mask, bias=bias), found, atol=1e-6)


def test_enormous_logits_stay_finite_and_below_them_too_masked_weights_are_exactly_zero():
  query, key, mask, bias = some_inputs(np.float32)
  arguments = (jnp.asarray(x) for x in (1e8 * query, 1e8 * key, mask, bias))
  gradients, weights = gradients_and_weights(*arguments)
  assert_close(jnp.sum(weights, axis=-1), np.ones((SIZE, HEADS, ASKERS)), rtol=1e-6)
  assert not np.any(np.asarray(weights)[np.broadcast_to(~mask[:, None], weights.shape)])
  for gradient in gradients:
    assert np.all(np.isfinite(gradient))
