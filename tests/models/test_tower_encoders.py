"""Towers in the model: it begins as they are, learns from there, and padding and dropped patches change nothing."""

import functools

import jax
import numpy as np
import pytest
import towers
from numpy.testing import assert_allclose

from hrem_jax.models.hrem import build_model, init_variables
from hrem_jax.models.text_tower import TextTower
from hrem_jax.models.tower_encoders import tower_settings
from hrem_jax.models.vision_tower import VisionTower
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

KINDS = [('regions', True), ('tower', False)]


def start(image: str, causal: bool):
  config = towers.tower_config(image=image, causal=causal)
  model = build_model(config.model)
  init = jax.jit(functools.partial(init_variables, model, region_size=config.model.region_size))
  return config, model, jax.device_get(init(jax.random.key(0))), towers.batch(config)


@pytest.fixture(scope='module', params=KINDS, ids=['features and CLIP', 'pixels and SigLIP'])
def started(request):
  return start(*request.param)


def encode(model, variables, batch, **changes):
  batch = batch.replace(**changes)
  images = (batch.regions, batch.region_mask) + (() if batch.embeddings is None else (batch.embeddings,))
  texts = batch.tokens, batch.word_mask
  return (
    model.apply(variables, *images, method='encode_images'),
    model.apply(variables, *texts, method='encode_texts'),
  )


def plain(tower, kind):
  """The tower alone, without what makes it a part of the model."""
  return kind(**{name: getattr(tower, name) for name in kind.__dataclass_fields__ if name not in ('parent', 'name')})


def plain_texts(config, model, variables, batch) -> np.ndarray:
  """On texts that are padded as in the tower's own training."""
  settings = config.model.text_tower
  padding = [(0, 0), (0, settings.max_positions - batch.tokens.shape[1])]
  tokens = np.pad(batch.tokens, padding, constant_values=settings.pad_token)
  tower = plain(model.text_encoder.language_model, TextTower)
  return tower.apply({'params': variables['params']['text_encoder']['language_model']}, tokens).embedding


def plain_images(model, variables, batch) -> np.ndarray:
  if model.image_encoder.tower is None:
    return batch.embeddings
  tower = model.image_encoder.tower
  colours = batch.regions.astype(np.float32).reshape(-1, 9, 16, 3)
  pixels = ((colours * np.float32(tower.scale) - np.float32(tower.mean)) / np.float32(tower.deviation)).reshape(
    -1, 9, 48
  )
  return plain(tower, VisionTower).apply({'params': variables['params']['image_encoder']['tower']}, pixels).embedding


def test_a_model_begins_as_its_towers_are(started):
  config, model, variables, batch = started
  images, texts = encode(model, variables, batch)
  assert images.embedding.shape == texts.embedding.shape == (6, 16)
  assert_allclose(images.embedding, plain_images(model, variables, batch), atol=1e-6)
  assert_allclose(texts.embedding, plain_texts(config, model, variables, batch), atol=1e-6)
  # What is learnt is there, and is something else.
  assert images.fragments.shape[2] == texts.fragments.shape[2] == 16


def test_training_moves_the_gain_first_and_the_head_after_it(started):
  config, model, variables, batch = started
  config.optimizer.update(language_model_lr_factor=0.0, image_tower_lr_factor=0.0, weight_decay=0.0)
  optimizer = Optimizer(config.optimizer, 10)
  state = create_state(variables, optimizer)
  step = jax.jit(
    functools.partial(train_step, model=model, optimizer=optimizer, loss=config.loss, graph_active=False),
  )
  first, _ = step(state, batch, 0)
  second, _ = step(first, batch, 0)

  def moved(before, after, *path) -> bool:
    before, after = (functools.reduce(lambda tree, name: tree[name], path, s.params) for s in (before, after))
    return any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))

  for encoder, tower in (('image_encoder', 'tower'), ('text_encoder', 'language_model')):
    assert moved(state, first, encoder, 'residual', 'gain')
    assert not moved(state, first, encoder, 'pooling')
    assert moved(first, second, encoder, 'pooling')
    if tower in state.params[encoder]:
      assert not moved(state, second, encoder, tower)  # frozen
  assert moved(first, second, 'image_encoder', 'projection')
  assert moved(first, second, 'text_encoder', 'linear')


def test_the_graph_works_on_the_fragments(started):
  _, model, variables, batch = started
  inputs = batch.regions, batch.region_mask, batch.tokens, batch.word_mask
  outputs = model.apply(variables, *inputs, graph_active=True, embeddings=batch.embeddings)
  assert outputs.enhanced_images.shape == outputs.enhanced_texts.shape == (6, 16)
  assert np.isfinite(outputs.relations.relevance).all()


def with_gain(variables: dict, gain: float) -> dict:
  params = {
    name: {**tree, 'residual': {'gain': np.float32(gain)}} if 'residual' in tree else tree
    for name, tree in variables['params'].items()
  }
  return {**variables, 'params': params}


def test_more_padding_changes_nothing(started):
  """A causal tower finds its end token; junk behind it is not looked at."""
  _, model, variables, batch = started
  variables, more = with_gain(variables, 0.7), [(0, 0), (0, 3)]
  wider = np.pad(batch.tokens, more, constant_values=7), np.pad(batch.word_mask, more)
  texts, same = (
    model.apply(variables, *inputs, method='encode_texts') for inputs in ((batch.tokens, batch.word_mask), wider)
  )
  assert_allclose(same.embedding, texts.embedding, atol=1e-6)


def test_patches_that_are_dropped_are_not_looked_at(started):
  _, model, variables, batch = started
  if model.image_encoder.tower is None:
    pytest.skip('no patches')
  variables, mask = with_gain(variables, 0.7), batch.region_mask.copy()
  mask[:, ::2] = False
  other = np.where(mask[..., None], batch.regions, 255 - batch.regions)
  encode = functools.partial(model.apply, variables, method='encode_images')
  ours, theirs, whole = encode(batch.regions, mask), encode(other, mask), encode(batch.regions, batch.region_mask)
  assert_allclose(theirs.embedding, ours.embedding, atol=1e-6)
  assert abs(whole.embedding - ours.embedding).max() > 1e-3


def test_parts_and_bfloat16_give_the_same_up_to_rounding():
  config, _, variables, batch = start('tower', True)
  config.model.update(image_graph=False, text_graph=False)
  variables = with_gain(variables, 0.7)

  def score(params, dtype: str, parts: int):
    config.model.update(dtype=dtype, parts=parts, remat=parts > 1)
    inputs = batch.regions, batch.region_mask, batch.tokens, batch.word_mask
    apply = functools.partial(build_model(config.model).apply, {**variables, 'params': params}, *inputs)
    outputs, _ = apply(graph_active=False, train=True, mutable=['batch_stats'])
    return (outputs.images.embedding * outputs.texts.embedding).sum()

  graded = jax.jit(jax.value_and_grad(score), static_argnums=(1, 2))
  (whole, grads), (split, split_grads) = (graded(variables['params'], 'float32', parts) for parts in (1, 3))
  assert_allclose(split, whole, rtol=1e-5)
  jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-5), split_grads, grads)
  assert_allclose(jax.jit(score, static_argnums=(1, 2))(variables['params'], 'bfloat16', 1), whole, atol=0.1)


def test_settings_describe_the_towers(started):
  config, model, *_ = started
  found = tower_settings(model.text_encoder.language_model)
  assert found == config.model.text_tower.to_dict()
  if model.image_encoder.tower is not None:
    assert tower_settings(model.image_encoder.tower) == config.model.image_tower.to_dict()
