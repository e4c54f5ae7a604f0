"""Groups, rates, clipping and kinds of optimizers, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from hrem_jax.methods.method import Group
from hrem_jax.methods.registry import build_method, default_config
from hrem_jax.training.optimizer import REST, Optimizer, label
from hrem_jax.training.setup import make_optimizer

PARAMS = {'text': {'model': jnp.array([1.0, -2.0]), 'linear': jnp.array([0.5])}, 'image': jnp.array([3.0, 4.0])}
GRADS = {'text': {'model': jnp.array([0.3, 0.1]), 'linear': jnp.array([-0.2])}, 'image': jnp.array([0.6, -0.8])}


def make(*groups: Group, **settings) -> Optimizer:
  config = default_config().optimizer
  config.update(learning_rate=0.1, weight_decay=0.0, clip_norm=1e9, **settings)
  return Optimizer(config, groups, steps_per_epoch=10, num_steps=40)


def test_groups_of_hrem():
  config = default_config()
  config.optimizer.image_tower_lr_factor, config.hrem.graph_lr_factor = 0.3, 3.0
  optimizer = make_optimizer(build_method(config), config, 10)
  factors = {
    'text_encoder/language_model/layers/kernel': 0.1,
    'text_encoder/linear/kernel': 1.0,
    'image_encoder/tower/layers/kernel': 0.3,
    'image_encoder/residual/gain': 1.0,
    'image_encoder/pooling/graph': 1.0,
    'interaction/layer': 3.0,
    'association/i2t': 3.0,
  }
  for path, factor in factors.items():
    group = optimizer.group_of(tuple(path.split('/')))
    assert group.rate_factor == factor, path
    assert group.first_step == (8000 if factor == 3.0 else 0)
  assert set(optimizer.active(8000)) - set(optimizer.active(7999)) == {'association', 'interaction'}


def test_the_longest_prefix_has_a_parameter_and_whole_names_count():
  optimizer = make(Group('text', 0.5), Group('text/model', 0.25))
  found = {path: optimizer.group_of(tuple(path.split('/'))).prefix for path in ('text/model', 'text/models', 'texts')}
  assert found == {'text/model': 'text/model', 'text/models': 'text', 'texts': ''}


def test_schedule_falls_at_the_epochs_of_each_group():
  config = default_config().optimizer
  optimizer = Optimizer(config, (), steps_per_epoch=10, num_steps=300)
  rates = [float(optimizer.rate(REST, step)) for step in (0, 149, 150, 249, 250, 299)]
  assert_allclose(rates, [5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6], rtol=1e-5)
  group = Group('a', 2.0, decay_epochs=(1,), decay_factor=0.5)
  assert_allclose([float(optimizer.rate(group, step)) for step in (9, 10, 299)], [1e-3, 5e-4, 5e-4], rtol=1e-5)


def test_the_triangle_rises_from_0_and_falls_to_0():
  optimizer = make(triangle=0.1, decay_epochs=())
  rates = [float(optimizer.rate(REST, step)) for step in (0, 2, 4, 22, 40)]
  assert_allclose(rates, [0.0, 0.05, 0.1, 0.05, 0.0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('clip', ['global', 'per_tensor'])
def test_clipping_keeps_small_gradients_and_shortens_large_ones(clip):
  optimizer = make(Group('image', first_step=5), clip=clip)
  optimizer.config.clip_norm = 6.0
  grads = {'text': {'model': jnp.array([3.0, 0.0]), 'linear': jnp.array([4.0])}, 'image': jnp.array([9.0, 0.0])}
  same, norm = optimizer._clip(grads, optimizer.active(0))
  assert float(norm) == 5.0  # of the active groups
  assert_allclose(same['text']['model'], grads['text']['model'])
  optimizer.config.clip_norm = 2.0
  shorter, norm = optimizer._clip(grads, optimizer.active(0))
  assert float(norm) == 5.0
  assert_allclose(shorter['text']['linear'], [4.0 * 2 / 5 if clip == 'global' else 2.0], rtol=1e-6)


def test_a_frozen_group_has_no_moments_and_does_not_move():
  optimizer = make(Group('text/model', 0.0))
  state = optimizer.init(PARAMS)
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(inner)) for name, inner in state.inner_states.items()}
  assert sizes == {'text.model': 0, 'rest': 1 + 2 * 3}  # a count, and two moments of three parameters
  params, _, _ = optimizer.update(GRADS, state, PARAMS, 0, active=optimizer.active(0))
  np.testing.assert_array_equal(params['text']['model'], PARAMS['text']['model'])
  assert (params['image'] != PARAMS['image']).all()
  frozen = jax.grad(lambda params: jnp.sum(optimizer.freeze(params)['text']['model'] ** 2))(PARAMS)
  assert not any(leaf.any() for leaf in jax.tree.leaves(frozen))


def test_a_group_that_waits_keeps_its_state_and_counts_its_own_updates():
  group = Group('image', first_step=2)
  optimizer = make(group)
  params, state = PARAMS, optimizer.init(PARAMS)
  for step in range(3):
    before = params['image'], state.inner_states[label(group)]
    params, state, _ = optimizer.update(GRADS, state, params, step, active=optimizer.active(step))
    after = params['image'], state.inner_states[label(group)]
    is_same = all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    assert is_same == (step < 2)
  # Adam's first update is rate * sign(gradient), whatever the step.
  assert_allclose(PARAMS['image'] - params['image'], [0.1, -0.1], rtol=1e-5)


def slow(name: str, grads: list, start: np.ndarray, rates: list, decay: float) -> np.ndarray:
  """The equations, one number at a time."""
  p, m, v = np.array(start, np.float64), 0.0, 0.0
  for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
    g = np.asarray(g, np.float64) + (decay * p if name == 'adam' else 0)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    if name == 'bert_adam':
      change = m / (np.sqrt(v) + 1e-6)
    else:
      change = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    p = p - rate * (change + (0 if name == 'adam' else decay * p))
  return p


@pytest.mark.parametrize('name', ['adamw', 'adam', 'bert_adam'])
def test_the_kinds_are_their_equations(name, x64):
  optimizer = make(name=name)
  optimizer.config.weight_decay = 0.03
  rng = np.random.default_rng(0)
  grads = [rng.normal(size=3) for _ in range(7)]
  params = {'a': jnp.asarray(rng.normal(size=3))}
  start, state = params['a'], optimizer.init(params)
  for step, g in enumerate(grads):
    params, state, _ = optimizer.update({'a': jnp.asarray(g)}, state, params, step, active=optimizer.active(step))
  assert_allclose(params['a'], slow(name, grads, start, [0.1] * 7, 0.03), rtol=1e-6)


def test_the_state_is_a_tree_of_arrays():
  """What a checkpoint holds: no functions, and the same structure before and after."""
  optimizer = make(Group('text/model', 0.0), Group('image', first_step=1))
  state = optimizer.init(PARAMS)
  _, after, _ = optimizer.update(GRADS, state, PARAMS, 0, active=optimizer.active(0))
  assert jax.tree.structure(state) == jax.tree.structure(after)
  assert isinstance(state, optax.transforms.PartitionState)
