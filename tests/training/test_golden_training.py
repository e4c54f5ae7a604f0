"""The objective with all its gradients, and 20 updates, as in the release."""

import functools
import json

import flax
import golden_model
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import steps
from numpy.testing import assert_allclose

from hrem_jax.methods.registry import default_config
from hrem_jax.models.matching import DistanceWeighted, Hinge
from hrem_jax.ports import release
from hrem_jax.ports.tables import read_entries
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import train_step

DTYPES = pytest.mark.parametrize(
  ('dtype', 'value_tolerance', 'gradient_tolerance'), [(jnp.float32, 1e-5, 1e-4), (jnp.float64, 1e-6, 1e-6)]
)
# Parameters whose true gradient is zero: an update turns their float noise into moves of the size of the rate.
NO_GRADIENT = ('attention/key/bias', 'mlp_in/bias')

flatten = functools.partial(flax.traverse_util.flatten_dict, sep='/')


def losses_of(name: str) -> dict:
  loss = Hinge() if name.endswith('vse') else DistanceWeighted(cutoff=1.9 if 'coco' in name else 1.7)
  return dict(base_loss=loss, enhanced_loss=loss, cross_weight=0.0 if 'nocross' in name else 1.0)


def objective_of(name: str, dtype):
  """Terms and gradients on the golden batch, the most likely negatives in place of drawn ones."""
  arrays, variables = golden_model.load(name), golden_model.variables(dtype)
  method = golden_model.model(
    dtype,
    relevance_weight=1.5 if 'weight15' in name else 1.0,
    normalize_inputs='unnormalised' not in name,
    **losses_of(name),
  )
  batch = golden_model.batch(arrays, 'batch/', dtype)

  def objective(params):
    losses, _ = method.apply(
      {**variables, 'params': params}, batch, phase='graph', mutable=['batch_stats'], method='losses'
    )
    total = sum(losses.weights[name] * value for name, value in losses.terms.items())
    return total, (losses.terms, losses.counts['anchors_without_negatives'])

  return jax.jit(jax.value_and_grad(objective, has_aux=True))(variables['params'])


@DTYPES
@pytest.mark.parametrize(
  'name',
  ['objective_trip', 'objective_coco_trip_weight15', 'objective_trip_nocross_unnormalised', 'objective_vse'],
)
def test_objective_and_gradients_are_the_releases(name, dtype, value_tolerance, gradient_tolerance):
  arrays = golden_model.load(name)
  expected = json.loads(str(arrays['meta_json']))
  with jax.enable_x64(dtype == jnp.float64):
    (total, (terms, without_negatives)), grads = objective_of(name, dtype)
    assert total.dtype == dtype
    assert int(without_negatives) == 0
    assert_allclose(total, expected['loss_f64'], rtol=value_tolerance)
    *mixed, enhanced = expected['components_f64']['gnn_loss']
    assert_allclose(terms['base'], expected['components_f64']['base_loss'], rtol=value_tolerance)
    assert_allclose(terms['enhanced'], enhanced, rtol=value_tolerance)
    assert_allclose(terms['relation'], expected['components_f64']['reg_loss'], rtol=10 * value_tolerance)
    assert ('cross' in terms) == bool(mixed)
    if mixed:
      assert_allclose(terms['cross'], sum(mixed), rtol=value_tolerance)
    assert_allclose(optax.tree.norm(grads), expected['total_grad_norm_f64'], rtol=gradient_tolerance)
    assert_gradients(grads, arrays, gradient_tolerance)


def assert_gradients(grads: dict, arrays: dict, tolerance: float):
  """Every parameter's gradient entry by entry, BERT's by norm, sum and largest entry."""
  encoders = {'image_encoder': 'img_enc', 'text_encoder': 'txt_enc'}
  tables = {
    'image_encoder': release.image_encoder_entries(),
    'text_encoder': [entry for entry in release.text_encoder_entries() if not entry.theirs.startswith('bert.')],
    'association': release.association_entries(),
    'interaction': release.transformer_entries('layer', 'gnn.layers.0'),
  }
  compared = 0
  for name, entries in tables.items():
    theirs = golden_model.part(arrays, f'grad/{encoders.get(name, "criterion")}.')
    ours = flatten(grads[name])
    for path, expected in flatten(read_entries(theirs, entries, source='golden')).items():
      assert ours[path].shape == expected.shape
      # Where the true gradient is zero there is noise on both sides: compare with an entry of usual size.
      largest = 1.0 if path.endswith(NO_GRADIENT) else np.abs(expected).max()
      assert_allclose(ours[path], expected, rtol=0, atol=tolerance * largest, err_msg=path)
      compared += 1
  assert compared == 8 + 3 * 16 + 2 + 8

  bert = flatten({'language_model': grads['text_encoder']['language_model']})
  digests = golden_model.part(arrays, 'digest/txt_enc.')
  for entry in (entry for entry in release.text_encoder_entries() if entry.theirs.startswith('bert.')):
    for layer in range(golden_model.NUM_LAYERS if '{layer}' in entry.theirs else 1):
      gradient = np.asarray(bert[entry.ours])
      gradient = gradient[layer] if '{layer}' in entry.theirs else gradient
      norm, total, largest, _ = digests[entry.theirs.format(layer=layer)]
      scale = 1.0 if entry.ours.endswith(NO_GRADIENT) else norm
      found = [np.sqrt((gradient**2).sum()), gradient.sum(), np.abs(gradient).max()]
      assert_allclose(found, [norm, total, largest], rtol=0, atol=5 * tolerance * scale, err_msg=entry.ours)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.float64, 1e-6)])
def test_twenty_updates_follow_the_release(dtype, tolerance):
  """The graph starts at step 5: its group's Adam counter must start there too, or the final parameters differ."""
  expected = golden_model.load('trajectory_vse')
  with jax.enable_x64(dtype == jnp.float64):
    method = golden_model.model(dtype, **losses_of('vse'))
    optimizer = make_optimizer(method, default_config(), 10**6)
    state = create_state(jax.tree.map(jnp.asarray, golden_model.variables(dtype)), optimizer)
    update = {
      graph: jax.jit(functools.partial(train_step, seed=0, **steps.options(method, optimizer, graph=graph)))
      for graph in (False, True)
    }
    graph_start = {'params': state.params['interaction']}
    for index in range(20):
      batch = golden_model.batch(expected, f'batch/{index:02d}/', dtype)
      state, metrics = update[index >= 5](state, batch)
      assert_allclose(metrics['loss'], expected['loss'][index], rtol=tolerance)
      assert_allclose(metrics['gradient_norm'], expected['gnorm'][index], rtol=10 * tolerance)
      if index < 5:
        assert_trees_equal(state.params['interaction'], graph_start['params'])

    final = golden_model.read_variables(expected, 'final/img_enc.', 'final/txt_enc.', 'final/criterion.', dtype)
    ours = flatten(state.variables)
    for path, array in flatten(final).items():
      assert ours[path].shape == array.shape
      # mlp_in/bias moves by noise, and the mean of its BatchNorm with it; the batch is normalised by its own mean.
      is_noise = path.endswith((*NO_GRADIENT, 'mlp_norm/mean'))
      assert_allclose(ours[path], array, rtol=0, atol=2e-2 if is_noise else 1e-5, err_msg=path)


def assert_trees_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)
