"""HREM's objective with all gradients, and a run of updates, beside the authors' program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import steps

from golden_checks import hrem_model
from golden_checks.golden_file import PARAMETER_BOUND, VALUE_BOUNDS, GoldenFile, flat
from hrem_jax.methods.hrem import HREM, Outputs
from hrem_jax.methods.registry import default_config
from hrem_jax.models.matching import DistanceWeighted, Hinge
from hrem_jax.ports import release
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import TrainState, create_state
from hrem_jax.training.step import train_step

# Zero in truth. An update turns the float noise of such a gradient into moves of the size of the rate.
NO_GRADIENT = ('attention/key/bias', 'mlp_in/bias')
TABLES = {
  'image_encoder': ('img_enc.', release.image_encoder_entries),
  'text_encoder': ('txt_enc.', release.text_encoder_entries),
  'association': ('criterion.', release.association_entries),
  'interaction': ('criterion.', release.interaction_entries),
}


def losses_of(options: dict) -> dict:
  """Args: `options` are the release's own."""
  distance_weighted = DistanceWeighted(cutoff=1.9 if options.get('dataset') == 'coco' else 1.7)
  hinge = Hinge(hardest_negative=options.get('max_violation', True))
  losses = {'trip': distance_weighted, 'vse': hinge}
  return dict(
    base_loss=losses[options['base_loss']],
    enhanced_loss=losses[options['gnn_loss']],
    cross_weight=float(options.get('cross_loss', 1)),
  )


def check_objective(file: GoldenFile) -> None:
  """Terms and gradients on a batch, the most likely negatives in place of drawn ones."""
  meta, weights = file.settings('meta_json'), file.sibling(hrem_model.WEIGHTS).use_below('')
  options = meta['overrides']
  fusion = dict(
    relevance_weight=float(options.get('mask_weight', 1.0)), normalize_inputs=bool(options.get('norm_input', 1))
  )
  method = hrem_model.build_model(weights, file.dtype, fusion=fusion, **losses_of(options))
  variables, batch = hrem_model.read_variables(weights), hrem_model.read_batch(file, 'batch/')

  def objective(params):
    variables_with = {**variables, 'params': params}
    losses, _ = method.apply(variables_with, batch, phase='graph', mutable=['batch_stats'], method='losses')
    return sum(losses.weights[name] * value for name, value in losses.terms.items()), losses.terms

  (total, terms), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(variables['params'])
  components = meta['components_f64']
  *mixed, enhanced = components['gnn_loss']
  for found, expected in (
    (total, meta['loss_f64']),
    (terms['base'], components['base_loss']),
    (terms['enhanced'], enhanced),
    (terms['relation'], components['reg_loss']),
    (terms.get('cross', 0.0), sum(mixed)),
    (optax.tree.norm(gradients), meta['total_grad_norm_f64']),
  ):
    file.compare_number('meta_json', found, expected)
  layers = hrem_model.num_layers(weights)
  for part, (prefix, entries) in TABLES.items():
    file.compare_parameters(f'grad/{prefix}', entries(), gradients[part], num_layers=layers, leave_out=NO_GRADIENT)
  _compare_digests(file, flat(gradients['text_encoder']), layers)
  _compare_interaction(file, jax.jit(functools.partial(_outputs, method))(variables, batch), method)


def _outputs(method, variables, batch):
  outputs, _ = method.apply(variables, batch, phase='graph', train=True, mutable=['batch_stats'])
  return outputs


def _compare_digests(file: GoldenFile, gradients: dict, layers: int) -> None:
  """Norm, sum and largest entry of BERT's gradients; the fourth number is a projection that nobody describes."""
  for entry in release.text_encoder_entries():
    stacked = '{layer}' in entry.theirs
    for layer in range(layers if stacked else 1):
      name = f'digest/txt_enc.{entry.theirs.format(layer=layer)}'
      if name in file and entry.ours.endswith(NO_GRADIENT):
        file.use(name)
      elif name in file:
        gradient = gradients[entry.ours][layer] if stacked else gradients[entry.ours]
        digest = [np.linalg.norm(gradient), np.sum(gradient), np.max(np.abs(gradient))]
        file.compare_gradient(name, [*digest, file.use(name)[3]])


def _compare_interaction(file: GoldenFile, outputs: Outputs, method: HREM) -> None:
  """What goes into the interaction, what it may look at, and what comes out: we keep the directions alone."""
  file.compare('aux/gnn_in', jnp.concatenate(method.interaction.inputs(outputs.images, outputs.texts)))
  bias = method.interaction.relevance_weight * outputs.relations.relevance
  file.compare('aux/gnn_mask', jnp.where(outputs.relations.connection, bias, -jnp.inf))
  lengths = np.linalg.norm(file.use('aux/gnn_out'), axis=1, keepdims=True)
  file.compare('aux/gnn_out', jnp.concatenate([outputs.enhanced_images, outputs.enhanced_texts]) * lengths)


def check_trajectory(file: GoldenFile) -> None:
  """Updates, the graph from a step on: its group's count of updates must start there, too."""
  weights, count = file.sibling(hrem_model.WEIGHTS).use_below(''), len(file.use('loss'))
  warmup_steps = int(np.argmax(file.use('reg') > 0))
  method = hrem_model.build_model(
    weights, file.dtype, warmup_steps=warmup_steps, **losses_of({'base_loss': 'vse', 'gnn_loss': 'vse'})
  )
  optimizer = make_optimizer(method, default_config(), 10**6)
  state = create_state(jax.tree.map(jnp.asarray, hrem_model.read_variables(weights)), optimizer)
  updates = {
    graph: jax.jit(functools.partial(train_step, seed=0, **steps.options(method, optimizer, graph=graph)))
    for graph in (False, True)
  }
  found = []
  for step in range(count):
    state, metrics = updates[step >= warmup_steps](state, hrem_model.read_batch(file, f'batch/{step:02d}/'))
    found.append({name: float(value) for name, value in metrics.items()})

  def all_of(name: str) -> np.ndarray:
    return np.array([metrics.get(name, 0.0) for metrics in found])

  file.compare('loss', all_of('loss'))
  file.compare('base', all_of('loss/base'))
  file.compare('reg', all_of('loss/relation'))
  file.compare('gnorm', all_of('gradient_norm'), bound=10 * VALUE_BOUNDS[file.dtype])
  theirs = file.use('gnn')  # two terms of which we have the sum, and the enhanced one
  off = (all_of('loss/cross') - theirs[:, 0] - theirs[:, 1]) / 2
  file.compare('gnn', np.stack([theirs[:, 0] + off, theirs[:, 1] + off, all_of('loss/enhanced')], axis=1))
  _compare_final(file, state, hrem_model.num_layers(weights))


def _compare_final(file: GoldenFile, state: TrainState, layers: int) -> None:
  options = dict(num_layers=layers, leave_out=NO_GRADIENT, bound=PARAMETER_BOUND)
  for part, (prefix, entries) in TABLES.items():
    file.compare_parameters(f'final/{prefix}', entries(), state.params[part], **options)
  statistics = state.variables['batch_stats']['image_encoder']
  # The mean moves with the bias in front of it.
  options['leave_out'] = ('mlp_norm/mean',)
  file.compare_parameters('final/img_enc.', release.batch_stats_entries(), statistics, **options)
  for name in file.names('final/'):
    if 'mlp.bns.1.' in name or name.endswith('num_batches_tracked') or 'bert.pooler.' in name:
      file.use(name)  # never used
