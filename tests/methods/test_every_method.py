"""What every method must do, whatever it computes: a row in METHODS is a row here.

One program per method gives everything: encoded instances, scores, terms and gradients. It is compiled once.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import synthetic
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.methods.registry import METHODS, build_method, default_config, described, init_variables, validate
from hrem_jax.settings import Setting

PAIRS, REGIONS, WORDS, VOCABULARY = 7, 5, 11, 29
REGION_COUNTS, WORD_COUNTS = np.array([5, 1, 3, 2, 5, 4, 1]), np.array([11, 2, 7, 3, 5, 2, 9])
METHOD = pytest.mark.parametrize('name', METHODS)


class Found(NamedTuple):
  """What the program of a method returns."""

  images: Any  # Encoded
  texts: Any
  score: jax.Array
  terms: dict
  watched: Any
  collections: dict
  gradients: dict


class Made(NamedTuple):
  config: Any
  method: Any
  variables: dict
  run: Any  # (params, batch) -> Found


def small_config(name: str, **changes):
  """Sizes that are distinct primes where they can be; everything else as the method's recipe has it."""
  config = default_config(name)
  config.model.update(text='bigru', region_size=synthetic.REGION_SIZE, embedding_size=24)
  config.model.bigru.update(vocab_size=VOCABULARY, word_size=17)
  for key, value in SMALL.get(name, {}).items():
    config.update_from_flattened_dict({key: value})
  config.update_from_flattened_dict(changes)
  validate(config)
  return config


# What does not go with so small sizes.
SMALL = {'hrem': {'hrem.num_heads': 3, 'hrem.association.top_k': 3, 'hrem.association.keep': 1.0, 'hrem.dropout': 0.0}}


@functools.cache
def made(name: str) -> Made:
  config = small_config(name)
  method = build_method(config)
  variables = init_variables(method, config, jax.random.key(0))

  def objective(params, batch):
    whole = {**variables, 'params': params}
    kept = [collection for collection in variables if collection != 'params']
    images = method.apply(whole, batch.images, method='encode_images')
    texts = method.apply(whole, batch.texts, method='encode_texts')
    score = method.apply(whole, images, texts, method='score')
    losses, collections = method.apply(whole, batch, phase=method.phases[-1], mutable=kept, method='losses')
    total = sum(losses.weights[term] * value for term, value in losses.terms.items())
    return total, (images, texts, score, losses.terms, losses.watched, dict(collections))

  @jax.jit
  def run(params, batch) -> Found:
    gradients, found = jax.grad(objective, has_aux=True)(params, batch)
    return Found(*found, gradients)

  return Made(config, method, variables, run)


def make_batch(*, junk: float = 0.0) -> Batch:
  """Ragged pairs, among them one region and two words (start and end); `junk` stands in the padding."""
  rng = np.random.default_rng(1)
  region_mask, word_mask = np.arange(REGIONS) < REGION_COUNTS[:, None], np.arange(WORDS) < WORD_COUNTS[:, None]
  regions = rng.normal(size=(PAIRS, REGIONS, synthetic.REGION_SIZE)).astype(np.float32)
  tokens = rng.integers(3, VOCABULARY, (PAIRS, WORDS)).astype(np.int32)
  images = ImageInputs(np.where(region_mask[..., None], regions, np.float32(junk)), region_mask)
  texts = TextInputs(np.where(word_mask, tokens, np.int32(junk) % VOCABULARY), word_mask)
  return Batch(images, texts, np.array([0, 1, 2, 2, 3, 4, 5], np.int32))


@functools.cache
def found(name: str) -> Found:
  return jax.device_get(made(name).run(made(name).variables['params'], make_batch()))


def permuted(tree, order):
  return jax.tree.map(lambda x: x[order], tree)


@METHOD
def test_everything_is_finite_and_something_is_learnt(name):
  result = found(name)
  for leaf in jax.tree.leaves(result):
    assert np.isfinite(leaf).all()
  gradients = flatten_dict(result.gradients, sep='/')
  still = {path for path, gradient in gradients.items() if not gradient.any()}
  # Biases in front of a BatchNorm or inside a softmax move nothing; all others take part.
  assert all(path.endswith('bias') for path in still), still
  assert len(still) < 0.2 * len(gradients)


@METHOD
def test_shapes_and_types(name):
  result, method = found(name), made(name).method
  assert result.score.shape in ((1, PAIRS, PAIRS), (2, PAIRS, PAIRS))
  assert result.score.dtype == np.float32
  for encoded in (result.images, result.texts):
    assert all(len(leaf) == PAIRS for leaf in jax.tree.leaves(encoded))
    if method.kind == 'embeddings':
      assert_allclose(np.linalg.norm(encoded.embedding, axis=-1), 1.0, rtol=1e-5)
    else:
      assert encoded.fragments.shape[0] == encoded.mask.shape[0] == PAIRS
  assert result.terms
  assert all(np.shape(value) == () and value >= 0 for value in result.terms.values())


@METHOD
def test_junk_in_padding_changes_nothing(name):
  other = jax.device_get(made(name).run(made(name).variables['params'], make_batch(junk=1e3)))
  for path, ours, theirs in zip(*flat(found(name)), flat(other)[1], strict=True):
    scale = max(1.0, float(np.abs(ours).max(initial=0)))
    assert_allclose(theirs, ours, rtol=0, atol=1e-5 * scale, err_msg=path)


def flat(result: Found) -> tuple[list[str], list[np.ndarray]]:
  """Everything whose place has nothing to do with padding."""
  leaves = jax.tree_util.tree_leaves_with_path((result.score, result.terms, result.collections, result.gradients))
  return [jax.tree_util.keystr(path) for path, _ in leaves], [np.asarray(leaf) for _, leaf in leaves]


@METHOD
def test_the_order_of_the_batch_changes_nothing(name):
  order = np.array([3, 6, 0, 5, 1, 4, 2])
  other = jax.device_get(made(name).run(made(name).variables['params'], permuted(make_batch(), order)))
  ours = found(name)
  assert_allclose(other.score, ours.score[:, order][:, :, order], atol=1e-5)
  for term, value in ours.terms.items():
    assert_allclose(other.terms[term], value, rtol=1e-5, err_msg=term)
  for path, gradient in flatten_dict(ours.gradients, sep='/').items():
    theirs = flatten_dict(other.gradients, sep='/')[path]
    assert_allclose(theirs, gradient, rtol=0, atol=2e-5 * max(1.0, np.abs(gradient).max()), err_msg=path)


@METHOD
def test_a_score_is_that_of_its_pair_alone(name):
  """Blocks of the matrix, each from its own instances, are the matrix: test scores do not look at the batch."""
  method, result = made(name).method, found(name)
  score = jax.jit(functools.partial(method.apply, {}, method='score'))
  rows, columns = np.array([4, 1, 6]), np.array([2, 0, 5])
  block = score(permuted(result.images, rows), permuted(result.texts, columns))
  assert_allclose(block, result.score[:, rows][:, :, columns], atol=1e-5)


@METHOD
def test_packed_captions_are_encoded_as_in_rows_of_their_own(name):
  method, variables = made(name).method, made(name).variables
  if not method.packs:
    pytest.skip('takes one caption a row')
  texts = make_batch().texts
  packed = TextInputs(*pack_rows(texts.tokens, texts.mask, lay_out(WORD_COUNTS, num_groups=1, row_width=17), pad=0))
  encoded = jax.jit(functools.partial(method.apply, method='encode_texts'))(variables, packed)
  expected = found(name).texts
  assert jax.tree.structure(encoded) == jax.tree.structure(expected)
  real = np.asarray(expected.mask)
  np.testing.assert_array_equal(encoded.mask, real)
  assert_allclose(np.asarray(encoded.fragments)[real], expected.fragments[real], atol=1e-5)
  if expected.embedding is not None:
    assert_allclose(encoded.embedding, expected.embedding, atol=1e-5)


@METHOD
def test_its_phases_follow_from_the_step(name):
  method = made(name).method
  phases = [method.phase(step, 100) for step in range(0, 20_000, 50)]
  assert set(phases) <= set(method.phases)
  assert phases[-1] == method.phases[-1]
  first = [phases.index(phase) for phase in dict.fromkeys(phases)]
  assert first == sorted(first)


@METHOD
def test_its_settings_have_words_and_its_groups_exist(name):
  entry, (config, method, variables, _) = METHODS[name], made(name)

  def settings(section):
    for value in section.values():
      yield from [value] if isinstance(value, Setting) else settings(value)

  assert all(setting.words for setting in settings(entry.settings))
  paths = ['/'.join(path) for path in flatten_dict(variables['params'])]
  towers = ('text_encoder/language_model', 'image_encoder/tower')
  for group in method.groups(config):
    assert group.prefix in towers or any(path.startswith(group.prefix) for path in paths), group
  assert described()[name]['kind'] == method.kind


@METHOD
def test_equal_configurations_make_equal_methods(name):
  """Programs are kept by method: two that are equal must share them."""
  one, other = build_method(small_config(name)), build_method(small_config(name))
  assert one == other
  assert hash(one) == hash(other)


@METHOD
def test_no_type_is_promoted_unsaid(name):
  """Encoding, scores, losses and their gradients: an integer or a half that becomes a float is written down."""
  method, variables = made(name).method, made(name).variables

  def objective(params, batch):
    whole = {**variables, 'params': params}
    images = method.apply(whole, batch.images, method='encode_images')
    texts = method.apply(whole, batch.texts, method='encode_texts')
    score = method.apply(whole, images, texts, method='score')
    kept = [collection for collection in variables if collection != 'params']
    losses, _ = method.apply(whole, batch, phase=method.phases[-1], mutable=kept, method='losses')
    return score.sum() + sum(losses.terms.values())

  with jax.numpy_dtype_promotion('strict'):
    jax.eval_shape(jax.grad(objective), variables['params'], make_batch())
