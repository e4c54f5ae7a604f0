"""Updates: the graph's group, first update, randomness, counts."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import synthetic
from numpy.testing import assert_allclose
from steps import adam

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.registry import build_method, init_variables
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

SIZE = 16  # divisible by eight devices


@pytest.fixture(scope='module')
def parts():
  """The step with and without jit, model, optimizer, first state and a batch with same-image pairs and ragged masks."""
  config = synthetic.tiny_config(pathlib.Path('unused'))
  config.model.bigru.vocab_size = 29
  config.hrem.dropout = 0.0
  config.hrem.association.keep = 1.0  # a threshold between nearly equal texts of a fresh model is a coin
  method = build_method(config)
  optimizer = make_optimizer(method, config, 5)
  variables = init_variables(method, config, jax.random.key(0))
  rng = np.random.default_rng(0)
  regions = jnp.asarray(rng.normal(size=(SIZE, 7, synthetic.REGION_SIZE)), jnp.float32)
  tokens = jnp.asarray(rng.integers(29, size=(SIZE, 11)))
  batch = Batch(
    ImageInputs(regions, jnp.asarray(np.arange(7) < rng.integers(1, 8, (SIZE, 1)))),
    TextInputs(tokens, jnp.asarray(np.arange(11) < rng.integers(2, 12, (SIZE, 1)))),
    jnp.asarray([0, 0, 1, 2, 2, 2, *range(3, 13)]),
  )
  plain = {
    graph: functools.partial(train_step, **steps.options(method, optimizer, graph=graph)) for graph in (False, True)
  }
  compiled = {graph: jax.jit(step) for graph, step in plain.items()}
  return {True: compiled, False: plain}, create_state(variables, optimizer), batch


def run_steps(parts, *, actives, jit=True, seed=3):
  updates, state, batch = parts
  for active in actives:
    state, metrics = updates[jit][active](state, batch, seed)
  return state, metrics


def test_the_graphs_group_sleeps_until_its_first_step(parts):
  start = parts[1]
  before, metrics = run_steps(parts, actives=[False, False])
  for name in ('association', 'interaction'):
    jax.tree.map(np.testing.assert_array_equal, before.params[name], start.params[name])
  for name in ('association', 'interaction'):
    jax.tree.map(np.testing.assert_array_equal, adam(before, name), adam(start, name))
  terms = {'loss', 'loss/base', 'gradient_norm', 'learning_rate', 'anchors_without_negatives'}
  assert set(metrics) == terms | {'skipped', 'skipped_in_a_row'}
  after, _ = run_steps(parts, actives=[False, False, True])
  assert int(after.step) == 3
  assert int(adam(after, 'rest').count) == int(adam(after, 'text_encoder.language_model').count) == 3
  assert int(adam(after, 'interaction').count) == int(adam(after, 'association').count) == 1
  moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), after.params['interaction'], start.params['interaction'])
  assert min(jax.tree.leaves(moved)) > 0


def test_first_update_is_adamw_by_hand(parts):
  """At the first update Adam moves every parameter by rate * sign(gradient); decay shrinks it by rate * 1e-4."""
  state = parts[1]
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
  statistics = [s.collections['batch_stats']['image_encoder']['projection']['mlp_norm'] for s in (eager, jitted)]
  jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6), *statistics)


def test_same_step_same_negatives_other_step_other_negatives(parts):
  _, first = run_steps(parts, actives=[True])
  _, again = run_steps(parts, actives=[True])
  _, other = run_steps(parts, actives=[True], seed=4)
  assert float(first['loss']) == float(again['loss'])
  assert float(first['loss']) != float(other['loss'])


def test_anchors_without_negatives_are_counted(parts):
  *others, batch = parts
  same = batch.replace(image_ids=jnp.zeros(SIZE, jnp.int32))
  after, metrics = run_steps((*others, same), actives=[False])
  assert float(metrics['loss']) == 0
  assert int(metrics['anchors_without_negatives']) == 2 * SIZE
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
