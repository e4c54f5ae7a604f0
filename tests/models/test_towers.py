"""The towers as modules: regions in place of pixels, dropped patches, where a text is pooled, types and platforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax.models.pre_norm import LayerSizes
from hrem_jax.models.text_tower import TextTower
from hrem_jax.models.vision_tower import VisionTower
from hrem_jax.ops.grids import cut_patches

LAYERS = LayerSizes(hidden_size=14, num_layers=3, num_heads=2, intermediate_size=19)
KINDS = {
  'vit': VisionTower(LAYERS, image_size=23, patch_size=5),
  'dinov2': VisionTower(
    LayerSizes(14, 3, 2, 24, gated=True, layer_scale=True), image_size=23, patch_size=5, num_registers=2
  ),
  'clip': VisionTower(
    LAYERS, image_size=23, patch_size=5, embedding_norm=True, pooling='class', projection_size=7, remat=True
  ),
  'siglip': VisionTower(LAYERS, image_size=23, patch_size=5, class_token=False, pooling='attention'),
}
TEXTS = {'clip': TextTower(LAYERS, 31, 11, 7, causal=True, end_token=5), 'siglip': TextTower(LAYERS, 31, 11, 14, False)}


def noisy(module, *inputs):
  """Variables that are far from the start, where a Transformer hardly looks around."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
  paths = [(path[-1].key, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)]
  leaves = [(name == 'scale') + 0.4 * rng.normal(size=shape).astype(np.float32) for name, shape in paths]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@pytest.fixture(scope='module')
def pixels():
  return np.random.default_rng(1).normal(size=(3, 23, 23, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def regions(pixels):
  return cut_patches(jnp.asarray(pixels), 5)


@functools.cache
def tower(kind: str):
  """A function of pixels or regions, and a mask or none."""
  variables = noisy(KINDS[kind], np.zeros((1, 23, 23, 3), np.float32))
  return functools.partial(jax.jit(KINDS[kind].apply), variables)


def test_patches_are_flattened_row_column_colour(pixels, regions):
  patches = np.asarray(regions)
  assert patches.shape == (3, 16, 75)
  for row, column in ((0, 0), (1, 2), (3, 3)):
    square = pixels[:, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
    assert_array_equal(patches[:, 4 * row + column], square.reshape(3, -1))


@pytest.mark.parametrize('kind', KINDS)
def test_regions_do_what_pixels_do(kind, pixels, regions):
  whole, same = tower(kind)(pixels), tower(kind)(regions, jnp.ones((3, 16), bool))
  assert whole.patches.shape == (3, 4, 4, 14)
  jax.tree.map(functools.partial(assert_allclose, rtol=1e-5, atol=1e-5), same, whole)


def test_other_sizes_are_refused(pixels):
  with pytest.raises(ValueError, match=r'neither \[b 23 23 3\] nor \[b 16 75\]'):
    tower('vit')(pixels[:, :19])


@pytest.mark.parametrize('kind', KINDS)
def test_dropped_patches_are_as_if_they_were_not_there(kind, regions):
  mask = np.random.default_rng(2).random((3, 16)) < 0.6
  junk = jnp.where(mask[..., None], regions, 1e3)
  features, spoilt = (tower(kind)(each, jnp.asarray(mask)) for each in (regions, junk))
  kept = mask.reshape(3, 4, 4)
  assert_array_equal(features.patches[kept], spoilt.patches[kept])
  whole = tower(kind)(regions, jnp.ones((3, 16), bool))
  assert np.abs(np.asarray(features.patches - whole.patches))[kept].max() > 1e-2
  if features.embedding is not None:
    assert_array_equal(features.embedding, spoilt.embedding)
    assert np.abs(np.asarray(features.embedding - whole.embedding)).max() > 1e-3


def test_gradients_stay_finite_with_a_mask_and_remat(regions):
  module = KINDS['clip']
  mask = jnp.zeros((3, 16), bool).at[:, 3].set(True)

  def loss(variables):
    features = module.apply(variables, regions, mask)
    return jnp.sum(features.embedding[:, 0]) + jnp.sum(features.patches[:, 0, 3])

  variables = tower('clip').args[0]
  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(variables)):
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize('end_token', [5, None])
def test_a_causal_tower_pools_at_the_end_token(end_token):
  module = TEXTS['clip'].clone(end_token=end_token)
  end = 5 if end_token else 30  # the largest number
  tokens = np.array([[9, 8, end, 7, 7, 7, 7, 7, 7, 7, 7], [3, 2, 1, 2, end, end, end, end, end, end, end]])
  variables, apply = noisy(module, tokens), jax.jit(module.apply)
  features = apply(variables, tokens)
  junk = np.where(np.arange(11) < [[3], [5]], tokens, end)
  for row, length in ((0, 3), (1, 5)):
    spoilt = apply(variables, junk)
    assert_array_equal(features.embedding[row], spoilt.embedding[row])
    assert_array_equal(features.words[row, :length], spoilt.words[row, :length])
    pooled = features.words[row, length - 1] @ variables['params']['projection']['kernel']
    assert_allclose(features.embedding[row], pooled / np.linalg.norm(pooled), atol=1e-6)
  with pytest.raises(ValueError, match='11 positions, the batch has 12'):
    apply(variables, np.zeros((2, 12), int))


def test_the_other_kind_looks_at_all_tokens():
  module = TEXTS['siglip']
  tokens = np.array([[9, 8, 5, 1, 1, 1, 1, 1, 1, 1, 1], [9, 8, 5, 1, 1, 1, 1, 1, 1, 1, 2]])
  features = jax.jit(module.apply)(noisy(module, tokens), tokens)
  assert features.embedding.shape == (2, 14)
  assert np.abs(np.asarray(features.words[0, 0] - features.words[1, 0])).max() > 1e-3


def test_bfloat16_computes_in_it_and_embeds_in_float32(pixels):
  module, (variables,) = KINDS['siglip'].clone(dtype=jnp.bfloat16), tower('siglip').args
  features, exact = jax.jit(module.apply)(variables, pixels), tower('siglip')(pixels)
  assert features.patches.dtype == jnp.bfloat16
  assert features.embedding.dtype == jnp.float32
  assert_allclose(np.asarray(features.patches, np.float32), exact.patches, atol=0.1 * np.abs(exact.patches).max())
  assert_allclose(features.embedding, exact.embedding, atol=0.1)


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('kind', KINDS)
def test_the_towers_lower(kind, platform, pixels):
  def lowered(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.jit(module.apply).trace(shapes, *inputs).lower(lowering_platforms=(platform,)).as_text()

  assert 'stablehlo.dot_general' in lowered(KINDS[kind], pixels)
  if kind in TEXTS:
    assert 'stablehlo.dot_general' in lowered(TEXTS[kind], np.ones((3, 11), np.int32))
