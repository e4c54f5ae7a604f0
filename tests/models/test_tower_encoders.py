"""Towers in the model: it begins as they are, learns from there, and padding and dropped patches change nothing."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
import towers
from numpy.testing import assert_allclose

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.methods.hrem import HREM
from hrem_jax.methods.registry import build_method, init_variables
from hrem_jax.models.text_tower import TextTower
from hrem_jax.models.tower_encoders import tower_settings
from hrem_jax.models.vision_tower import VisionTower


@dataclasses.dataclass(frozen=True)
class Start:
  """A model before its first step, and functions of it that are compiled once."""

  config: Any
  method: HREM
  variables: dict
  batch: Batch

  @functools.cached_property
  def images(self):
    return jax.jit(functools.partial(self.method.apply, method='encode_images'))

  @functools.cached_property
  def texts(self):
    return jax.jit(functools.partial(self.method.apply, method='encode_texts'))

  def with_gain(self, gain: float) -> dict:
    params = dict(self.variables['params'])
    for encoder in ('image_encoder', 'text_encoder'):
      params[encoder] = {**params[encoder], 'residual': {'gain': np.float32(gain)}}
    return {**self.variables, 'params': params}

  def gradients(self, gain: float, *, parts: int = 1) -> dict:
    """Of the similarities of the batch's pairs, while training, by part."""
    return graded(self.config.model.image, self.config.model.text_tower.causal, parts)(self.with_gain(gain)['params'])


@functools.cache
def start(image: str, causal: bool) -> Start:
  config = towers.tower_config(image=image, causal=causal)
  method = build_method(config)
  return Start(config, method, jax.device_get(init_variables(method, config, jax.random.key(0))), towers.batch(config))


@functools.cache
def graded(image: str, causal: bool, parts: int):
  """The compiled gradient; layers are computed again where there are several parts."""
  started = start(image, causal)
  config, batch = started.config.copy_and_resolve_references(), started.batch
  config.model.update(parts=parts, remat=parts > 1)
  method = build_method(config)

  def score(params):
    variables = {**started.variables, 'params': params}
    outputs, _ = method.apply(variables, batch, phase='base', train=True, mutable=['batch_stats'])
    return (outputs.images.embedding * outputs.texts.embedding).sum()

  return jax.jit(jax.grad(score))


@pytest.fixture(scope='module', params=[('regions', True), ('tower', False)], ids=['CLIP on features', 'SigLIP'])
def started(request) -> Start:
  return start(*request.param)


def plain(tower, kind):
  """The tower alone, without what makes it a part of the model."""
  return kind(**{name: getattr(tower, name) for name in kind.__dataclass_fields__ if name not in ('parent', 'name')})


def plain_texts(started: Start) -> np.ndarray:
  """On texts that are padded as in the tower's own training."""
  settings, batch = started.config.model.text_tower, started.batch
  padding = [(0, 0), (0, settings.max_positions - batch.texts.tokens.shape[1])]
  tokens = np.pad(batch.texts.tokens, padding, constant_values=settings.pad_token)
  params = started.variables['params']['text_encoder']['language_model']
  return jax.jit(plain(started.method.text_encoder.language_model, TextTower).apply)(
    {'params': params}, tokens
  ).embedding


def plain_images(started: Start) -> np.ndarray:
  batch, tower = started.batch, started.method.image_encoder.tower
  if tower is None:
    return batch.images.extras['embeddings']
  colours = batch.images.regions.astype(np.float32).reshape(-1, 9, 16, 3) * np.float32(tower.scale)
  pixels = ((colours - np.float32(tower.mean)) / np.float32(tower.deviation)).reshape(-1, 9, 48)
  params = started.variables['params']['image_encoder']['tower']
  return jax.jit(plain(tower, VisionTower).apply)({'params': params}, pixels).embedding


def test_a_model_begins_as_its_towers_are(started):
  batch = started.batch
  images = started.images(started.variables, batch.images)
  texts = started.texts(started.variables, batch.texts)
  assert images.embedding.shape == texts.embedding.shape == (6, 16)
  assert_allclose(images.embedding, plain_images(started), atol=1e-6)
  assert_allclose(texts.embedding, plain_texts(started), atol=1e-6)
  # What is learnt is there, and is something else.
  assert images.fragments.shape[2] == texts.fragments.shape[2] == 16
  assert abs(started.images(started.with_gain(0.7), batch.images).embedding - images.embedding).max() > 0.1


def test_gradients_reach_the_gain_first_and_the_head_after_it(started):
  first, later = (started.gradients(gain) for gain in (0.0, 0.01))
  for encoder, part in (('image_encoder', 'projection'), ('text_encoder', 'linear')):
    assert abs(first[encoder]['residual']['gain']) > 0
    largest = [max(float(abs(x).max()) for x in jax.tree.leaves(each[encoder][part])) for each in (first, later)]
    assert largest[0] == 0 < largest[1]


def test_the_graph_works_on_the_fragments():
  started = start('regions', True)
  batch = started.batch
  outputs = jax.jit(functools.partial(started.method.apply, phase='graph'))(started.variables, batch)
  assert outputs.enhanced_images.shape == outputs.enhanced_texts.shape == (6, 16)
  assert np.isfinite(outputs.relations.relevance).all()


def test_more_padding_changes_nothing(started):
  """A causal tower finds its end token; junk behind it is not looked at."""
  variables, more, batch = started.with_gain(0.7), [(0, 0), (0, 3)], started.batch
  wider = TextInputs(np.pad(batch.texts.tokens, more, constant_values=7), np.pad(batch.texts.mask, more))
  texts, same = (started.texts(variables, inputs) for inputs in (batch.texts, wider))
  assert_allclose(same.embedding, texts.embedding, atol=1e-6)


def test_a_tower_that_pads_on_the_left_gets_its_texts_there():
  right = start('tower', False)
  config = right.config.copy_and_resolve_references()
  config.model.text_tower.pads_left = True
  method, batch = build_method(config), right.batch
  found = jax.jit(functools.partial(method.apply, method='encode_texts'))(right.variables, batch.texts)
  tokens = np.full((6, 12), 49, np.int32)
  for number, real in enumerate(batch.texts.mask):
    tokens[number, 12 - real.sum() :] = batch.texts.tokens[number, real]
  params = right.variables['params']['text_encoder']['language_model']
  tower = plain(right.method.text_encoder.language_model, TextTower)
  expected = jax.jit(tower.apply)({'params': params}, tokens)
  assert_allclose(found.embedding, expected.embedding, atol=1e-6)
  linear = right.variables['params']['text_encoder']['linear']
  for number, real in enumerate(batch.texts.mask):
    words = expected.words[number, 12 - real.sum() :] @ linear['kernel'] + linear['bias']
    assert_allclose(found.fragments[number, real], words, atol=1e-5)


def test_patches_that_are_dropped_are_not_looked_at():
  started = start('tower', False)
  batch, variables = started.batch, started.with_gain(0.7)
  regions, mask = batch.images.regions, batch.images.mask.copy()
  mask[:, ::2] = False
  other = np.where(mask[..., None], regions, 255 - regions)
  inputs = ImageInputs(regions, mask), ImageInputs(other, mask), batch.images
  ours, theirs, whole = (started.images(variables, each).embedding for each in inputs)
  assert_allclose(theirs, ours, atol=1e-6)
  assert abs(whole - ours).max() > 1e-3


def test_parts_and_layers_that_are_computed_again_give_the_same_gradients():
  started = start('tower', False)
  whole, split = started.gradients(0.01), started.gradients(0.01, parts=3)
  jax.tree.map(lambda a, b: assert_allclose(a, b, atol=1e-5), split, whole)


def test_half_precision_is_the_same_up_to_rounding():
  started = start('tower', False)
  config = started.config.copy_and_resolve_references()
  config.model.dtype = 'bfloat16'
  half = jax.jit(functools.partial(build_method(config).apply, method='encode_images'))
  variables, inputs = started.with_gain(0.7), started.batch.images
  found, expected = half(variables, inputs).embedding, started.images(variables, inputs).embedding
  assert found.dtype == np.float32
  assert_allclose(found, expected, atol=0.03)


def test_packed_texts_of_a_causal_tower_are_the_same():
  started = start('regions', True)
  batch, variables = started.batch, started.with_gain(0.7)
  layout = lay_out(batch.texts.mask.sum(axis=1), num_groups=2, row_width=17)
  tokens, mask, packing = pack_rows(batch.texts.tokens, batch.texts.mask, layout, pad=49)
  assert len(set(packing.captions[0].tolist()) - {-1}) > 1  # several in a row
  expected = started.texts(variables, batch.texts)
  found = started.texts(variables, TextInputs(tokens, mask, packing))
  assert_allclose(found.embedding, expected.embedding, atol=1e-6)
  real = expected.mask[..., None]
  assert_allclose(np.where(real, found.fragments, 0), np.where(real, expected.fragments, 0), atol=1e-5)


def test_settings_describe_the_towers(started):
  text, image = started.method.text_encoder.language_model, started.method.image_encoder.tower
  assert tower_settings(text) == started.config.model.text_tower.to_dict()
  if image is not None:
    assert tower_settings(image) == started.config.model.image_tower.to_dict()
