"""Updates: parameter groups, schedule, clipping, randomness."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from numpy.testing import assert_allclose

from hrem_jax.configuration import default_config
from hrem_jax.data.batch import Batch
from hrem_jax.models.hrem import build_model, init_variables
from hrem_jax.training.optimizer import Optimizer, clip_by_global_norm, learning_rate_at, rate_factor
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

SIZE = 16  # divisible by eight devices


@pytest.fixture(scope='module')
def parts():
  """The step with and without jit, model, optimizer, first state and a batch with same-image pairs and ragged masks."""
  config = synthetic.tiny_config(pathlib.Path('unused'))
  config.model.bigru.vocab_size = 29
  config.model.dropout = 0.0
  config.model.association.keep = 1.0  # a threshold between nearly equal texts of a fresh model is a coin
  model = build_model(config.model)
  optimizer = Optimizer(config.optimizer, steps_per_epoch=5)
  variables = init_variables(model, jax.random.key(0), region_size=synthetic.REGION_SIZE)
  rng = np.random.default_rng(0)
  batch = Batch(
    regions=jnp.asarray(rng.normal(size=(SIZE, 7, synthetic.REGION_SIZE)), jnp.float32),
    region_mask=jnp.asarray(np.arange(7) < rng.integers(1, 8, (SIZE, 1))),
    tokens=jnp.asarray(rng.integers(29, size=(SIZE, 11))),
    word_mask=jnp.asarray(np.arange(11) < rng.integers(2, 12, (SIZE, 1))),
    image_ids=jnp.asarray([0, 0, 1, 2, 2, 2, *range(3, 13)]),
  )
  step = functools.partial(train_step, model=model, optimizer=optimizer, loss=config.loss)
  steps = {True: jax.jit(step, static_argnames='graph_active'), False: step}
  return steps, model, optimizer, create_state(variables, optimizer), batch


def run_steps(parts, *, actives, jit=True, seed=3):
  steps, *_, state, batch = parts
  for active in actives:
    state, metrics = steps[jit](state, batch, seed, graph_active=active)
  return state, metrics


def test_the_graphs_group_sleeps_until_its_first_step(parts):
  start = parts[3]
  before, metrics = run_steps(parts, actives=[False, False])
  for name in ('association', 'interaction'):
    jax.tree.map(np.testing.assert_array_equal, before.params[name], start.params[name])
  jax.tree.map(np.testing.assert_array_equal, before.optimizer['graph'], start.optimizer['graph'])
  terms = {'loss', 'loss/base', 'gradient_norm', 'learning_rate', 'anchors_without_negatives'}
  assert set(metrics) == terms | {'skipped', 'skipped_in_a_row'}
  after, _ = run_steps(parts, actives=[False, False, True])
  assert int(after.step) == 3
  assert int(after.optimizer['encoders'][0].count) == 3
  assert int(after.optimizer['graph'][0].count) == 1
  moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), after.params['interaction'], start.params['interaction'])
  assert min(jax.tree.leaves(moved)) > 0


def test_rates_of_the_groups():
  config = default_config().optimizer
  assert rate_factor(('text_encoder', 'language_model', 'layers', 'kernel'), config) == 0.1
  assert rate_factor(('text_encoder', 'linear', 'kernel'), config) == 1.0
  config.image_tower_lr_factor = 0.3
  assert rate_factor(('image_encoder', 'tower', 'layers', 'kernel'), config) == 0.3
  assert rate_factor(('image_encoder', 'residual', 'gain'), config) == 1.0
  config.graph_lr_factor = 3.0
  assert rate_factor(('interaction', 'layer'), config) == rate_factor(('association', 'i2t'), config) == 3.0
  assert rate_factor(('image_encoder', 'pooling', 'graph'), config) == 1.0


def test_schedule_falls_at_its_epochs():
  config = default_config().optimizer
  rates = [float(learning_rate_at(jnp.asarray(step), config, 10)) for step in (0, 149, 150, 249, 250, 299)]
  assert_allclose(rates, [5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6], rtol=1e-5)


def test_clipping_keeps_small_gradients_and_shortens_large_ones():
  grads = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([4.0])}
  same, norm = clip_by_global_norm(grads, 6.0)
  assert float(norm) == 5.0
  assert_allclose(same['a'], grads['a'])
  shorter, _ = clip_by_global_norm(grads, 2.0)
  assert_allclose(shorter['b'], [4.0 * 2 / 5], rtol=1e-6)


def test_first_update_is_adamw_by_hand(parts):
  """At the first update Adam moves every parameter by rate * sign(gradient); decay shrinks it by rate * 1e-4."""
  state = parts[3]
  after, _ = run_steps(parts, actives=[False])
  before, now = (np.asarray(s.params['text_encoder']['linear']['kernel']) for s in (state, after))
  steps = (before - now - 3e-3 * 1e-4 * before) / 3e-3
  assert_allclose(abs(steps), 1.0, rtol=2e-2)


@pytest.mark.slow
def test_jit_changes_nothing(parts):
  """The equations one by one are in the tests of `ops`, where each is quick."""
  (eager, eager_metrics), (jitted, jitted_metrics) = (
    run_steps(parts, actives=[True], jit=jit) for jit in (False, True)
  )
  for name, value in eager_metrics.items():
    assert_allclose(jitted_metrics[name], value, rtol=1e-5, err_msg=name)
  statistics = [s.batch_stats['image_encoder']['projection']['mlp_norm'] for s in (eager, jitted)]
  jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6), *statistics)


def test_same_step_same_negatives_other_step_other_negatives(parts):
  _, first = run_steps(parts, actives=[True])
  _, again = run_steps(parts, actives=[True])
  _, other = run_steps(parts, actives=[True], seed=4)
  assert float(first['loss']) == float(again['loss'])
  assert float(first['loss']) != float(other['loss'])


def test_anchors_without_negatives_are_counted(parts):
  *others, batch = parts
  same = Batch(batch.regions, batch.region_mask, batch.tokens, batch.word_mask, jnp.zeros(SIZE, jnp.int32))
  after, metrics = run_steps((*others, same), actives=[False])
  assert float(metrics['loss']) == 0
  assert int(metrics['anchors_without_negatives']) == 2 * SIZE
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
