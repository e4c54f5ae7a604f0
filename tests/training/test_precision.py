"""Encoders that compute in bfloat16 lead a training to nearly the same place."""

import jax
import jax.numpy as jnp
import numpy as np
import steps
import synthetic

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.sharding import data_mesh
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import jit_train_step

SIZE, REGIONS, WORDS, STEPS = 14, 5, 7, 12


def make_batch() -> Batch:
  """Pairs that can be learnt: the first word of a caption and the mean of the regions tell the pair."""
  rng = np.random.default_rng(0)
  regions = rng.normal(size=(SIZE, 1, synthetic.REGION_SIZE)) + 0.3 * rng.normal(
    size=(SIZE, REGIONS, synthetic.REGION_SIZE)
  )
  tokens = rng.integers(SIZE, 29, (SIZE, WORDS))
  tokens[:, 0] = np.arange(SIZE)
  masks = [np.arange(count) < rng.integers(2, count + 1, (SIZE, 1)) for count in (REGIONS, WORDS)]
  images, texts = ImageInputs(regions.astype(np.float32), masks[0]), TextInputs(tokens.astype(np.int32), masks[1])
  return Batch(images, texts, np.arange(SIZE))


def train(dtype: str) -> tuple[np.ndarray, np.ndarray]:
  """The loss of every step, and the similarities after the last one."""
  config = default_config()
  config.model.update(embedding_size=32, region_size=synthetic.REGION_SIZE, dtype=dtype)
  config.hrem.update(num_heads=4, dropout=0.0)
  config.model.bert.update(vocab_size=29, hidden_size=24, num_layers=1, num_heads=4, intermediate_size=48, dropout=0.0)
  config.loss.base = config.hrem.enhanced = 'hinge'  # no random negatives
  config.optimizer.update(learning_rate=3e-3, language_model_lr_factor=1.0)
  method, batch = build_method(config), make_batch()
  optimizer = make_optimizer(method, config, 100)
  step = jit_train_step(data_mesh(), **steps.options(method, optimizer, graph=True))
  state = create_state(init_variables(method, config, jax.random.key(0)), optimizer)
  losses = []
  for _ in range(STEPS):
    state, metrics = step(state, batch, np.uint32(0))
    losses.append(float(metrics['loss']))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
  images = method.apply(state.variables, batch.images, method='encode_images').embedding
  texts = method.apply(state.variables, batch.texts, method='encode_texts').embedding
  return np.array(losses), np.asarray(images @ texts.T)


def test_a_training_in_bfloat16_stays_near_one_in_float32():
  (full, full_scores), (half, half_scores) = (train(dtype) for dtype in ('float32', 'bfloat16'))
  assert full[-1] < 0.8 * full[0]  # something was learnt: otherwise the two agree by doing nothing
  assert not np.array_equal(full, half)
  assert np.abs(half - full).max() < 0.05 * full[0]  # of what there was to learn
  assert np.abs(half_scores - full_scores).max() < 0.2
  assert np.corrcoef(half_scores.ravel(), full_scores.ravel())[0, 1] > 0.98
