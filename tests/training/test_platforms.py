"""What runs here is lowered for the accelerators too: a construct that only a CPU knows must not slip in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

from hrem_jax.configuration import default_config
from hrem_jax.data.batch import Batch
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.models.hrem import build_model, init_variables
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step
from hrem_jax.variants import with_variant

SIZE, REGIONS, WORDS = 6, synthetic.NUM_REGIONS, 11
VARIANTS = ['fusion', 'standalone+hinge+model.text=bigru', 'model.dtype=bfloat16+squared_affinity']


def make(variant: str):
  """Model, optimizer, configuration, and the shapes of state and batch."""
  config = default_config()
  config.model.update(embedding_size=32, num_heads=4, region_size=synthetic.REGION_SIZE)
  config.model.bert.update(vocab_size=29, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)
  config.model.bigru.update(vocab_size=29, word_size=5)
  config = with_variant(config, variant)
  model, optimizer = build_model(config.model), Optimizer(config.optimizer, steps_per_epoch=7)
  init = lambda rng: create_state(init_variables(model, rng, region_size=synthetic.REGION_SIZE), optimizer)  # noqa: E731
  state = jax.eval_shape(init, jax.random.key(0))
  mask = np.arange(WORDS) < np.arange(2, 2 + SIZE)[:, None]
  rows, row_mask, packing = pack_rows(
    mask.astype(np.int32), mask, lay_out(mask.sum(axis=1), num_groups=1, row_width=WORDS), pad=0
  )
  regions = jnp.zeros((SIZE, REGIONS, synthetic.REGION_SIZE), jnp.float16)
  batch = Batch(regions, jnp.ones((SIZE, REGIONS), bool), rows, row_mask, jnp.arange(SIZE), packing)
  return config, model, optimizer, state, batch


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_the_step_lowers(variant, platform):
  config, model, optimizer, state, batch = make(variant)
  for graph_active in (False, True):
    step = functools.partial(train_step, model=model, optimizer=optimizer, loss=config.loss, graph_active=graph_active)
    lowered = jax.jit(step).trace(state, batch, np.uint32(0)).lower(lowering_platforms=(platform,))
    assert 'stablehlo.dot_general' in lowered.as_text()


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('text', ['bert', 'bigru'])
def test_the_encoders_lower(text, platform):
  _, model, _, state, batch = make(f'model.text={text}')
  mask = jnp.ones((SIZE, WORDS), bool)
  inputs = {'encode_images': (batch.regions, batch.region_mask), 'encode_texts': (mask.astype(jnp.int32), mask)}
  for method, arrays in inputs.items():
    encode = jax.jit(functools.partial(model.apply, method=method))
    lowered = encode.trace(state.variables, *arrays).lower(lowering_platforms=(platform,))
    assert 'stablehlo.dot_general' in lowered.as_text()
