"""Both encoders give the release's embeddings."""

import functools

import golden_model
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from hrem_jax.models.fragment_pooling import POOLED


def assert_close(actual, expected, *, tolerance):
  """`tolerance` relative to the largest entry."""
  assert actual.shape == expected.shape
  assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.float64, 1e-6)])
@pytest.mark.parametrize('name', ['full', 'ragged', 'train'])
def test_encoders_give_the_releases_embeddings(name, dtype, tolerance):
  expected = golden_model.load(f'encoder_{name}')
  with jax.enable_x64(dtype == jnp.float64):
    batch = golden_model.batch(expected, '', dtype)
    settings = dict(phase='base', train=name == 'train', mutable=['batch_stats'])
    apply = jax.jit(functools.partial(golden_model.model(dtype).apply, **settings))
    outputs, updated = apply(golden_model.variables(dtype), batch)
    assert outputs.images.embedding.dtype == dtype
    for encoded, prefix in ((outputs.images, 'img'), (outputs.texts, 'cap')):
      assert_close(encoded.embedding, expected[f'{prefix}_emb'], tolerance=tolerance)
      assert_close(encoded.extras[POOLED], expected[f'{prefix}_emb_notnorm'], tolerance=tolerance)
      real = np.asarray(encoded.mask)
      assert_close(encoded.fragments[real], expected[f'{prefix}_emb_pre_pool'][real], tolerance=tolerance)
    if name == 'train':
      statistics = updated['batch_stats']['image_encoder']['projection']['mlp_norm']
      assert_close(statistics['mean'], expected['bn/fc.mlp.bns.0.running_mean'], tolerance=tolerance)
      assert_close(statistics['variance'], expected['bn/fc.mlp.bns.0.running_var'], tolerance=tolerance)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.float64, 1e-6)])
def test_bert_gives_the_releases_states(dtype, tolerance):
  expected = golden_model.load('encoder_ragged')
  with jax.enable_x64(dtype == jnp.float64):
    batch, model = golden_model.batch(expected, '', dtype), golden_model.model(dtype)
    bert = {'params': golden_model.variables(dtype)['params']['text_encoder']['language_model']}
    states = model.text_encoder.language_model.clone(parent=None).apply(bert, batch.texts.tokens, batch.texts.mask)
    real = np.asarray(batch.texts.mask)
    assert_close(states[real], expected['bert_emb'][real], tolerance=tolerance)
