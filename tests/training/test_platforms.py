"""What runs here is lowered for the accelerators too: a construct that only a CPU knows must not slip in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import synthetic

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.methods.variants import with_variant
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

SIZE, REGIONS, WORDS = 6, synthetic.NUM_REGIONS, 11
VARIANTS = ['fusion', 'standalone+hinge+model.text=bigru', 'model.dtype=bfloat16+squared_affinity']


def make(variant: str):
  """Method, optimizer, and the shapes of state and batch."""
  config = default_config()
  config.model.update(embedding_size=32, region_size=synthetic.REGION_SIZE)
  config.hrem.update(num_heads=4)
  config.model.bert.update(vocab_size=29, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)
  config.model.bigru.update(vocab_size=29, word_size=5)
  config = with_variant(config, variant)
  method = build_method(config)
  optimizer = make_optimizer(method, config, 7)
  init = lambda rng: create_state(init_variables(method, config, rng), optimizer)  # noqa: E731
  state = jax.eval_shape(init, jax.random.key(0))
  mask = np.arange(WORDS) < np.arange(2, 2 + SIZE)[:, None]
  rows, row_mask, packing = pack_rows(
    mask.astype(np.int32), mask, lay_out(mask.sum(axis=1), num_groups=1, row_width=WORDS), pad=0
  )
  regions = jnp.zeros((SIZE, REGIONS, synthetic.REGION_SIZE), jnp.float16)
  images = ImageInputs(regions, jnp.ones((SIZE, REGIONS), bool))
  return method, optimizer, state, Batch(images, TextInputs(rows, row_mask, packing), jnp.arange(SIZE))


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_the_step_lowers(variant, platform):
  method, optimizer, state, batch = make(variant)
  for graph in (False, True):
    step = functools.partial(train_step, **steps.options(method, optimizer, graph=graph))
    lowered = jax.jit(step).trace(state, batch, np.uint32(0)).lower(lowering_platforms=(platform,))
    assert 'stablehlo.dot_general' in lowered.as_text()


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('text', ['bert', 'bigru'])
def test_the_encoders_lower(text, platform):
  method, _, state, batch = make(f'model.text={text}')
  mask = jnp.ones((SIZE, WORDS), bool)
  inputs = {'encode_images': batch.images, 'encode_texts': TextInputs(mask.astype(jnp.int32), mask)}
  for name, instances in inputs.items():
    encode = jax.jit(functools.partial(method.apply, method=name))
    lowered = encode.trace(state.variables, instances).lower(lowering_platforms=(platform,))
    assert 'stablehlo.dot_general' in lowered.as_text()
