"""Pooling by rank: the slow oracle, its finite differences, the public program, padding and packed rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_pooling as oracle
import pytest
from oracle import assert_close, l2_normalize, numerical_gradient

from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.models.pooling_by_rank import PoolingByRank
from hrem_jax.ops.pooling import weighted_by_rank
from hrem_jax.ports.gpo import pooling_entries
from hrem_jax.ports.tables import read_entries

SIZE, FRAGMENTS, CHANNELS, POSITION, HIDDEN = 5, 7, 3, 4, 5
SMALL = functools.partial(PoolingByRank, POSITION, HIDDEN, 0.3)
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}


def ragged_fragments(dtype=np.float64):
  """All real, all but some in the middle, two, one, none."""
  fragments, mask = (
    np.random.default_rng(0).normal(size=(SIZE, FRAGMENTS, CHANNELS)).astype(dtype),
    np.zeros((5, 7), bool),
  )
  mask[0] = True
  mask[1, [0, 2, 3, 6]] = True
  mask[2, :2] = True
  mask[3, 4] = True
  fragments[..., 1] = -np.abs(fragments[..., 1])  # no zero of the padding comes out on top
  return fragments, mask


@functools.cache
def parameters(dtype=np.float32):
  params = SMALL().init(jax.random.key(0), jnp.zeros((2, 3, CHANNELS)), jnp.ones((2, 3), bool))['params']
  return jax.tree.map(lambda x: np.asarray(7 * x, dtype), params)  # far from uniform weights


@functools.partial(jax.jit, static_argnames='dtype')
def pool(params, fragments, mask, *, dtype):
  return SMALL(dtype=dtype).apply({'params': params}, fragments, mask)


@functools.partial(jax.jit, static_argnums=(0, 2))
def weights_by_count(module, params, most):
  return module.apply({'params': params}, most, method='weights_by_count')


def expected_embedding(fragments, mask, params):
  settings = dict(size=POSITION, temperature=0.3)
  weights = [oracle.rank_weights(count, params, **settings) if count else [] for count in mask.sum(1)]
  return l2_normalize(oracle.weighted_by_rank(fragments, mask, weights))


def test_sorted_sum_worked_by_hand():
  # Channels (3, 1, 2) and (-1, -5, -4), weights 0.5, 0.3, 0.2: 1.5 + 0.6 + 0.2 and -0.5 - 1.2 - 1.
  fragments = jnp.array([[[3.0, -1.0], [1.0, -5.0], [9.0, 9.0], [2.0, -4.0]]])
  found = weighted_by_rank(fragments, jnp.array([[True, True, False, True]]), jnp.array([[0.5, 0.3, 0.2, 7.0]]))
  assert_close(found, [[2.3, -2.7]], atol=1e-6)


def test_embeddings_and_weights_equal_the_oracle(dtype):
  (fragments, mask), params = ragged_fragments(dtype), parameters(dtype)
  encoded = pool(params, fragments, mask, dtype=dtype)
  assert encoded.embedding.dtype == dtype
  assert_close(encoded.embedding, expected_embedding(fragments, mask, params), atol=10 * TOLERANCE[dtype])
  assert not np.any(encoded.embedding[4])
  weights = weights_by_count(SMALL(dtype=dtype), params, FRAGMENTS)
  for count in range(1, FRAGMENTS + 1):
    expected = oracle.rank_weights(count, params, size=POSITION, temperature=0.3) + [0.0] * (FRAGMENTS - count)
    assert_close(weights[count - 1], expected, atol=TOLERANCE[dtype])
  assert np.max(weights[-1]) > 0.3


@pytest.mark.usefixtures('x64')
def test_gradients_equal_finite_differences():
  (fragments, mask), params = ragged_fragments(), parameters(np.float64)
  probe = np.random.default_rng(1).normal(size=(SIZE, CHANNELS))

  def ours(params, fragments):
    return jnp.sum(pool(params, fragments, mask, dtype=np.float64).embedding * probe)

  by_params, by_fragments = jax.grad(ours, argnums=(0, 1))(params, jnp.asarray(fragments))

  def reference(params, fragments=fragments):
    return np.sum(expected_embedding(fragments, mask, params) * probe)

  assert_close(by_fragments, numerical_gradient(lambda x: reference(params, x), fragments), atol=1e-8)
  assert not np.any(np.asarray(by_fragments)[~mask])
  rng = np.random.default_rng(2)
  for _ in range(2):
    steps = jax.tree.map(lambda x: 1e-6 * rng.normal(size=x.shape), params)
    above, below = (
      reference(jax.tree.map(lambda x, step, sign=sign: x + sign * step, params, steps)) for sign in (1, -1)
    )
    found = sum(jax.tree.leaves(jax.tree.map(lambda x, step: np.sum(x * step), by_params, steps)))
    assert found == pytest.approx((above - below) / 2, rel=1e-6)


@pytest.mark.parametrize('junk', [1e30, np.nan, -np.inf], ids=str)
def test_padding_takes_part_in_nothing_and_gets_no_gradient(junk):
  (fragments, mask), params = ragged_fragments(np.float32), parameters()

  @jax.jit
  def run(fragments):
    def total(fragments):
      embedding = SMALL().apply({'params': params}, fragments, mask).embedding
      return jnp.sum(embedding[:, 0]), embedding

    return jax.grad(total, has_aux=True)(fragments)

  usual = run(jnp.asarray(fragments))
  found = run(jnp.asarray(np.where(mask[..., None], fragments, np.float32(junk))))
  jax.tree.map(np.testing.assert_array_equal, found, usual)
  assert np.all(np.isfinite(found[0]))


def test_order_of_fragments_and_appended_padding_do_not_matter():
  (fragments, mask), params = ragged_fragments(np.float32), parameters()
  usual = pool(params, fragments, mask, dtype=np.float32).embedding
  order = np.random.default_rng(3).permutation(FRAGMENTS)
  assert_close(pool(params, fragments[:, order], mask[:, order], dtype=np.float32).embedding, usual, atol=1e-6)
  wider, wider_mask = np.pad(fragments, ((0, 0), (0, 4), (0, 0)), constant_values=9), np.pad(mask, ((0, 0), (0, 4)))
  assert_close(pool(params, wider, wider_mask, dtype=np.float32).embedding, usual, atol=1e-6)


def test_bfloat16_fragments_are_pooled_in_float32():
  fragments, mask = ragged_fragments(np.float32)
  found = pool(parameters(), jnp.asarray(fragments, jnp.bfloat16), mask, dtype=jnp.bfloat16)
  assert found.embedding.dtype == found.fragments.dtype == np.float32
  rounded = np.asarray(jnp.asarray(fragments, jnp.bfloat16), np.float32)
  assert_close(found.embedding, pool(parameters(), rounded, mask, dtype=np.float32).embedding, atol=1e-6)


def test_packed_rows_give_the_values_of_padded_ones():
  lengths = np.array([3, 7, 2, 5, 1])
  mask = np.arange(FRAGMENTS) < lengths[:, None]
  tokens = np.where(mask, np.arange(mask.size).reshape(mask.shape), 0)
  rows, row_mask, packing = pack_rows(tokens, mask, lay_out(lengths, num_groups=1, row_width=11), pad=0)
  table = jnp.asarray(np.random.default_rng(4).normal(size=(mask.size, CHANNELS)), jnp.float32)
  packed = jax.jit(SMALL().apply)({'params': parameters()}, table[rows], row_mask, packing=packing)
  padded = pool(parameters(), table[tokens], mask, dtype=np.float32)
  assert_close(packed.embedding, padded.embedding, atol=1e-6)
  np.testing.assert_array_equal(packed.mask[:, :FRAGMENTS], mask)


def test_start_values_are_those_of_pytorch():
  params = PoolingByRank().init(jax.random.key(0), jnp.zeros((2, 3, 5)), jnp.ones((2, 3), bool))['params']
  leaves = jax.tree.leaves(params)
  assert sum(leaf.size for leaf in leaves) == 2 * (2 * 32 * 96 + 2 * 96) + 32
  for leaf in leaves:
    assert 0.9 * 32**-0.5 < np.max(np.abs(leaf)) <= 32**-0.5 or leaf.size == 32
    assert np.max(np.abs(leaf)) <= 32**-0.5


# --- the public program -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('text', 'dtype'), [('bigru', np.float64), ('bert', np.float32)])
def test_weights_and_pooled_vectors_equal_the_public_program(golden, text, dtype):
  arrays = np.load(golden / f'gpo_{text}.npz')
  for modality, fragments, pooled, lengths in (
    ('image', 'image_fragments', 'images', 'region_lengths'),
    ('text', 'text_fragments', 'texts', 'word_lengths'),
  ):
    prefix = f'weights/{modality}.'
    tensors = {name.removeprefix(prefix): arrays[name].astype(dtype) for name in arrays if name.startswith(prefix)}
    params = read_entries(tensors, pooling_entries(), source=text)['pooling']
    module, tolerance = PoolingByRank(dtype=dtype), 10 * TOLERANCE[dtype]
    expected = arrays[f'pool_weights/{modality}']
    assert_close(weights_by_count(module, params, len(expected)), expected, atol=tolerance)
    x = arrays[f'eval/{fragments}'].astype(dtype)
    mask = np.arange(x.shape[1]) < arrays[lengths][:, None]
    found = jax.jit(module.apply)({'params': params}, x, mask)
    assert_close(found.embedding, arrays[f'eval/{pooled}'], atol=tolerance)
    weights = arrays[f'eval/{modality}_weights'].astype(dtype)
    summed = weighted_by_rank(jnp.asarray(x), jnp.asarray(mask), jnp.asarray(weights))
    assert_close(
      summed, arrays[f'eval/{pooled}_pooled'], atol=tolerance * np.max(np.abs(arrays[f'eval/{pooled}_pooled']))
    )
