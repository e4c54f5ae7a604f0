"""Numbers of the authors' program: the association graph and the matching losses, values and gradients.

Where we differ on purpose (METHOD section 4, D) the slow oracle says what we do instead.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import assert_close
from rounding import chance_error, log_weight_condition

from hrem_jax.models.association import Association, RelevanceMlp
from hrem_jax.models.encoded import Encoded
from hrem_jax.ops.losses import (
  cosine_similarity,
  distance_weighted_loss,
  hinge_loss,
  log_negative_weights,
  relation_loss,
)
from hrem_jax.ops.relations import fragment_relations, gaussian_affinity
from hrem_jax.ops.text_blocks import Tiling
from hrem_jax.ports.release import association_entries
from hrem_jax.ports.tables import read_entries

BATCH = 12
VALUE_TOLERANCE = {np.float32: 1e-5, np.float64: 1e-6}
GRADIENT_TOLERANCE = {np.float32: 1e-4, np.float64: 1e-6}
EXPECTED_LOSS_TOLERANCE = 2e-5  # the release computed this one in float32
CUTOFF = {'coco': 1.9, 'f30k': 1.7}
BLOCKS = ('i2i', 'i2t', 't2i', 't2t')
compiled_cosine = jax.jit(cosine_similarity)
compiled_log_weights = jax.jit(log_negative_weights, static_argnames='cutoff')
compiled_relations = jax.jit(fragment_relations, static_argnames=('top_k', 'tiling'))
FULL = ('relations_full_k10', 'relations_full_k4')


@pytest.fixture(params=[np.float32, np.float64], ids=['float32', 'x64'])
def dtype(request):
  with jax.enable_x64(request.param is np.float64):
    yield request.param


def assert_near(found, expected, tolerance):
  """Within `tolerance` of the largest entry of `expected`."""
  assert_close(found, expected, atol=tolerance * np.max(np.abs(expected)))


def load(golden, name, dtype):
  """Floating-point arrays in `dtype`, all others as they are."""
  with np.load(golden / f'{name}.npz') as arrays:
    return {
      key: value.astype(dtype) if np.issubdtype(value.dtype, np.floating) else value for key, value in arrays.items()
    }


def association_parameters(tensors, prefix, source):
  named = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
  return jax.tree.map(jnp.asarray, read_entries(named, association_entries(), source=source))


def split_blocks(matrix):
  """`[n, n]` as the four blocks, images first; row = who asks."""
  images, texts = slice(None, BATCH), slice(BATCH, None)
  corners = ((images, images), (images, texts), (texts, images), (texts, texts))
  return {name: matrix[rows, columns] for name, (rows, columns) in zip(BLOCKS, corners, strict=True)}


# --- association graph ------------------------------------------------------------------------------------------------


def mask_of_lengths(lengths, size):
  return jnp.asarray(np.arange(size) < lengths[:, None])


def run_association(golden, name, dtype):
  """Outputs and gradients of `probe = reg_loss + sum over blocks of relation * R`."""
  arrays = load(golden, name, dtype)
  top_k = int(arrays['topk'])
  prefix = 'criterion.' if top_k == 10 else 'criterion_topk4.'
  parameters = association_parameters(load(golden, 'weights', dtype), prefix, 'weights.npz')
  images, texts = (
    Encoded(
      embedding=jnp.asarray(arrays[f'{kind}_emb']),
      fragments=jnp.asarray(arrays[fragments]),
      mask=mask_of_lengths(arrays[f'{kind}_len'], arrays[fragments].shape[1]),
    )
    for kind, fragments in (('img', 'img_regions'), ('cap', 'cap_words'))
  )
  association = Association(top_k=top_k, keep=float(arrays['threshold']))

  def probe(image_embedding, text_embedding, parameters):
    asked = images.replace(embedding=image_embedding), texts.replace(embedding=text_embedding)
    relations = association.apply({'params': parameters}, *asked)
    relevance = split_blocks(relations.relevance)
    affinity = gaussian_affinity(image_embedding, text_embedding)
    reg_loss = relation_loss(relevance['i2t'], affinity) + relation_loss(relevance['t2i'], affinity.T)
    weighted = sum(jnp.sum(relevance[block] * arrays[f'R_{block}']) for block in BLOCKS)
    return reg_loss + weighted, (relevance, split_blocks(relations.connection), reg_loss)

  run = jax.jit(jax.value_and_grad(probe, argnums=(0, 1, 2), has_aux=True))
  (value, outputs), gradients = run(images.embedding, texts.embedding, parameters)
  return arrays, (value, *outputs), gradients


@pytest.mark.parametrize('name', FULL)
def test_association_graph_and_its_gradients_equal_the_release(golden, dtype, name):
  arrays, (probe, relevance, connection, reg_loss), gradients = run_association(golden, name, dtype)
  for block in BLOCKS:
    assert relevance[block].dtype == dtype
    assert_close(connection[block], arrays[f'connect_{block}'])
    assert_near(relevance[block], arrays[f'relation_{block}'], VALUE_TOLERANCE[dtype])
  # A small difference of log-softmaxes near -2.5, where one float32 digit is 2e-7.
  assert_close(reg_loss, arrays['reg_loss'], rtol=VALUE_TOLERANCE[dtype], atol=1e-7 if dtype is np.float32 else 0)
  assert_close(probe, arrays['probe'], rtol=VALUE_TOLERANCE[dtype])
  expected = association_parameters(
    {key.replace('g_adj_learning', 'adj_model.adj_learning'): value for key, value in arrays.items()}, '', name
  )
  assert_near(gradients[0], arrays['g_img_emb'], GRADIENT_TOLERANCE[dtype])
  assert_near(gradients[1], arrays['g_cap_emb'], GRADIENT_TOLERANCE[dtype])
  assert len(jax.tree.leaves(expected)) == 8
  jax.tree.map(lambda one, other: assert_near(one, other, GRADIENT_TOLERANCE[dtype]), gradients[2], expected)


@pytest.mark.parametrize('name', FULL)
def test_fragment_means_of_full_lengths_equal_the_release(golden, dtype, name):
  arrays = load(golden, name, dtype)
  i2t, t2i = relate(arrays)
  assert_near(i2t.mean, arrays['i2t_mean'], VALUE_TOLERANCE[dtype])
  assert_near(t2i.mean, arrays['t2i_mean'], VALUE_TOLERANCE[dtype])


def relate(arrays, top_k=4):
  masks = [
    mask_of_lengths(arrays[f'{kind}_len'], arrays[fragments].shape[1])
    for kind, fragments in (('img', 'img_regions'), ('cap', 'cap_words'))
  ]
  regions, words = jnp.asarray(arrays['img_regions']), jnp.asarray(arrays['cap_words'])
  return compiled_relations(regions, masks[0], words, masks[1], top_k=top_k, tiling=Tiling(5, 14))


def test_ragged_pairs_equal_the_release_trimmed_to_their_own_lengths(golden, dtype):
  arrays = load(golden, 'relations_ragged_k4', dtype)
  parameters = association_parameters(load(golden, 'weights', dtype), 'criterion_topk4.', 'weights.npz')
  assert min(arrays['img_len']) == min(arrays['cap_len']) == 4
  for direction, relations in zip(('i2t', 't2i'), relate(arrays), strict=True):
    assert_near(relations.mean, arrays[f'{direction}_mean'], VALUE_TOLERANCE[dtype])
    relevance = RelevanceMlp().apply({'params': parameters[direction]}, relations)
    assert_near(relevance, arrays[f'{direction}_relation'], VALUE_TOLERANCE[dtype])
    layers = [parameters[direction][layer][part] for layer in ('hidden', 'output') for part in ('kernel', 'bias')]
    assert_near(relevance, oracle.relevance(*map(np.asarray, (*relations, *layers))), VALUE_TOLERANCE[dtype])


def test_slow_oracle_equals_the_release_on_ragged_pairs(golden):
  arrays = load(golden, 'relations_ragged_k4', np.float64)
  masks = [np.arange(size) < lengths[:, None] for size, lengths in ((10, arrays['img_len']), (14, arrays['cap_len']))]
  few = slice(0, BATCH, 5)  # the loops over all pairs take seconds
  (i2t, _), (t2i, _) = oracle.fragment_relations(
    arrays['img_regions'][few], masks[0][few], arrays['cap_words'][few], masks[1][few], top_k=4
  )
  assert_near(i2t, arrays['i2t_mean'][few, few], VALUE_TOLERANCE[np.float64])
  assert_near(t2i, arrays['t2i_mean'][few, few], VALUE_TOLERANCE[np.float64])


# --- hinge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mask_same_image', [False, True], ids=['all_pairs', 'other_images'])
@pytest.mark.parametrize('hardest_negative', [False, True], ids=['all', 'hardest'])
@pytest.mark.parametrize('name', ['dup', 'uniq', 'tie'])
def test_hinge_loss_and_its_gradients_equal_the_release(golden, dtype, name, hardest_negative, mask_same_image):
  arrays = load(golden, 'loss_hinge', np.float64)
  images, texts, image_ids = (arrays[f'{name}/{key}'] for key in ('im', 's', 'img_ids'))
  is_positive = oracle.same_image(image_ids) if mask_same_image else np.eye(BATCH, dtype=bool)
  # Identical embeddings (set `tie`) shall tie on every machine: a float32 product may round them differently.
  similarity = np.round(images @ texts.T, 9).astype(dtype)
  (loss, without), gradient = compiled_hinge_gradient(
    jnp.asarray(similarity), jnp.asarray(is_positive), hardest_negative=hardest_negative
  )
  prefix = f'{name}/mv{hardest_negative:d}_mr{mask_same_image:d}'
  gradient = np.asarray(gradient, np.float64)
  assert without == 0
  assert_close(loss, arrays[f'{prefix}/loss'], rtol=VALUE_TOLERANCE[dtype])
  assert_near(gradient @ texts, arrays[f'{prefix}/g_im'], GRADIENT_TOLERANCE[dtype])
  assert_near(gradient.T @ images, arrays[f'{prefix}/g_s'], GRADIENT_TOLERANCE[dtype])


@functools.partial(jax.jit, static_argnames='hardest_negative')
def compiled_hinge_gradient(similarity, is_positive, *, hardest_negative):
  def loss(similarity):
    found = hinge_loss(similarity, is_positive, hardest_negative=hardest_negative)
    return found.loss, found.anchors_without_negatives

  (value, without), gradient = jax.value_and_grad(loss, has_aux=True)(similarity)
  return (value, without), gradient


# --- distance-weighted ------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames='cutoff')
def compiled_loss_gradients(images, texts, is_positive, *, cutoff):
  def loss(images, texts):
    found = distance_weighted_loss(cosine_similarity(images, texts), is_positive, None, cutoff=cutoff)
    return found.loss, found.anchors_without_negatives

  return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(images, texts)


def distance_weighted_set(golden, name, dtype):
  arrays = load(golden, 'loss_distance_weighted', np.float64)
  images, texts = (jnp.asarray(arrays[f'{name}/{key}'], dtype) for key in ('im', 's'))
  return arrays, images, texts, oracle.same_image(arrays[f'{name}/img_ids'])


def two_directions(similarity, is_positive):
  return (('im', similarity, is_positive), ('s', similarity.T, is_positive.T))


@pytest.mark.parametrize('cutoff', CUTOFF)
@pytest.mark.parametrize('name', ['dup', 'uniq'])
def test_distance_weighted_loss_and_its_gradients_equal_the_release(golden, dtype, name, cutoff):
  arrays, images, texts, is_positive = distance_weighted_set(golden, name, dtype)
  (loss, without), gradients = compiled_loss_gradients(images, texts, jnp.asarray(is_positive), cutoff=CUTOFF[cutoff])
  assert without == 0
  assert_close(loss, arrays[f'{name}/{cutoff}/loss'], rtol=VALUE_TOLERANCE[dtype])
  assert_near(gradients[0], arrays[f'{name}/{cutoff}/g_im'], GRADIENT_TOLERANCE[dtype])
  assert_near(gradients[1], arrays[f'{name}/{cutoff}/g_s'], GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize('cutoff', CUTOFF)
@pytest.mark.parametrize('name', ['dup', 'uniq', 'lowrank'])
def test_chances_of_negatives_equal_the_release_in_the_rows_that_it_keeps(golden, dtype, name, cutoff):
  arrays, images, texts, is_positive = distance_weighted_set(golden, name, dtype)
  for side, similarity, positive in two_directions(compiled_cosine(images, texts), is_positive):
    chances, expected_loss = chances_of_negatives(similarity, positive, CUTOFF[cutoff])
    released = arrays[f'{name}/{cutoff}/weight_{side}']
    total = np.sum(released, axis=1, keepdims=True)
    is_kept = total[:, 0] > 1e-30  # below, underflow has left the release too few digits, or none
    assert np.all(is_kept) == (name != 'lowrank')
    expected, condition = released[is_kept] / total[is_kept], log_weight_condition(similarity)[is_kept]
    assert chances[is_kept].shape == expected.shape
    underflow = np.finfo(np.float32).tiny / total[is_kept]  # what float32 may have lost of the release's weights
    assert np.all(np.abs(chances[is_kept] - expected) <= chance_error(expected, condition, dtype) + underflow)
    if name != 'lowrank':
      assert_close(expected_loss, arrays[f'{name}/{cutoff}/expected_loss_{side}'], rtol=EXPECTED_LOSS_TOLERANCE)


def chances_of_negatives(similarity, is_positive, cutoff):
  """Of every column in float64, and the mean of the loss over all draws."""
  log_weights = np.asarray(compiled_log_weights(similarity, jnp.asarray(is_positive), cutoff=cutoff), np.float64)
  expected_loss, _ = oracle.expected_triplet_loss(np.asarray(similarity, np.float64), is_positive, log_weights)
  return oracle.probabilities(log_weights), expected_loss


def test_row_that_the_release_lets_underflow_is_normalised_over_its_eligible_negatives(golden, dtype):
  arrays, images, texts, is_positive = distance_weighted_set(golden, 'uniq', dtype)
  total = np.sum(arrays['uniq/f30k/weight_im'], axis=1)
  assert total[11] < 1e-4 < 0.9 < np.min(total[:11])
  similarity = compiled_cosine(images, texts)
  chances, _ = chances_of_negatives(similarity, is_positive, CUTOFF['f30k'])
  assert np.sum(chances[11]) == pytest.approx(1)
  reference = oracle.log_negative_weights(np.asarray(similarity, np.float64), is_positive, CUTOFF['f30k'])
  expected, condition = oracle.probabilities(reference)[11], log_weight_condition(similarity)[11]
  assert np.all(np.abs(chances[11] - expected) <= chance_error(expected, condition, dtype))


@pytest.mark.parametrize('cutoff', CUTOFF)
def test_anchors_that_silence_a_direction_of_the_release_still_learn(golden, dtype, cutoff):
  # In set `lowrank` rows of the release underflow; it then gives up the whole direction: loss and gradients 0.
  arrays, images, texts, is_positive = distance_weighted_set(golden, 'lowrank', dtype)
  prefix = f'lowrank/{cutoff}'
  assert arrays[f'{prefix}/raised_im']
  assert arrays[f'{prefix}/raised_s']
  assert arrays[f'{prefix}/loss'] == 0
  (loss, without), gradients = compiled_loss_gradients(images, texts, jnp.asarray(is_positive), cutoff=CUTOFF[cutoff])
  similarity = oracle_cosines(images, texts)
  weights = [
    oracle.log_negative_weights(scores, positive, CUTOFF[cutoff])
    for _, scores, positive in two_directions(similarity, is_positive)
  ]
  assert all(np.all(np.any(np.isfinite(rows), axis=1)) for rows in weights)
  expected, expected_without = oracle.distance_weighted_loss(similarity, is_positive, weights)
  assert without == expected_without == 0
  assert expected > 10
  assert_close(loss, expected, rtol=VALUE_TOLERANCE[dtype])
  by_similarity = oracle.numerical_gradient(
    lambda x: oracle.distance_weighted_loss(x, is_positive, weights)[0], similarity
  )
  images, texts = (np.asarray(x, np.float64) for x in (images, texts))
  assert_near(gradients[0], by_similarity @ texts, GRADIENT_TOLERANCE[dtype])
  assert_near(gradients[1], by_similarity.T @ images, GRADIENT_TOLERANCE[dtype])


def oracle_cosines(images, texts):
  return np.array([[oracle.dot(image, text) for text in np.asarray(texts)] for image in np.asarray(images)])
