"""AdamW with the recipe's parameter groups (METHOD section 5)."""

from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float, Int

GRAPH_PARTS = ('association', 'interaction')


def learning_rate_at(step: Int[Array, ''], config: ml_collections.ConfigDict, steps_per_epoch: int) -> Float[Array, '']:
  """The base rate, times `decay_factor` at each of the `decay_epochs`; `config` is the section `optimizer`."""
  boundaries = jnp.asarray([epoch * steps_per_epoch for epoch in config.decay_epochs])
  return config.learning_rate * config.decay_factor ** jnp.sum(step >= boundaries)


def rate_factor(path: tuple[str, ...], config: ml_collections.ConfigDict) -> float:
  """By how much the learning rate of the parameter at `path` differs from the base rate."""
  if path[:2] == ('text_encoder', 'language_model'):
    return config.language_model_lr_factor
  if path[:2] == ('image_encoder', 'tower'):
    return config.image_tower_lr_factor
  return config.graph_lr_factor if path[0] in GRAPH_PARTS else 1.0


def clip_by_global_norm(grads: dict, clip_norm: float) -> tuple[dict, Float[Array, '']]:
  """Gradients scaled to a norm of at most `clip_norm`, and the norm before."""
  norm = optax.tree.norm(grads)
  scale = jnp.minimum(clip_norm / (norm + 1e-6), 1.0)  # the epsilon is PyTorch's
  return jax.tree.map(lambda g: g * scale, grads), norm


class Optimizer(NamedTuple):
  """Two groups with Adam counters of their own: the graph's starts with the first graph step.

  Before that the association and the interaction get no gradient, no decay and no moment update.
  """

  config: ml_collections.ConfigDict  # the section `optimizer`
  steps_per_epoch: int

  def freeze(self, params: dict) -> dict:
    """Cuts the gradient of what has rate 0: it stays as it is and costs no backward pass."""
    return flax.traverse_util.path_aware_map(
      lambda path, x: x if rate_factor(path, self.config) else jax.lax.stop_gradient(x), params
    )

  def init(self, params: dict) -> dict:
    return {name: self._adamw().init(group) for name, group in _groups(params).items()}

  def update(
    self, grads: dict, state: dict, params: dict, step: Int[Array, ''], *, graph_active: bool
  ) -> tuple[dict, dict, dict[str, Float[Array, '']]]:
    """One update.

    Args:
      grads, params: Whole trees; without an active graph the gradients of its parts are not looked at.
      state: As from `init`.
      step: Updates done so far; sets the rate.
      graph_active: Static; whether the graph's group takes part.

    Returns:
      New params, new state, and metrics: the gradient norm before clipping and the base rate.
    """
    grads, params_by_group = _groups(grads), _groups(params)
    active = [name for name in params_by_group if name == 'encoders' or graph_active]
    clipped, norm = clip_by_global_norm({name: grads[name] for name in active}, self.config.clip_norm)
    rate = learning_rate_at(step, self.config, self.steps_per_epoch)
    new_params, new_state = dict(params_by_group), dict(state)
    for name in active:
      updates, new_state[name] = self._adamw().update(clipped[name], state[name], params_by_group[name])
      updates = flax.traverse_util.path_aware_map(lambda path, u: -rate * rate_factor(path, self.config) * u, updates)
      new_params[name] = optax.apply_updates(params_by_group[name], updates)
    merged = {part: tree for group in new_params.values() for part, tree in group.items()}
    return merged, new_state, {'gradient_norm': norm, 'learning_rate': rate}

  def _adamw(self) -> optax.GradientTransformation:
    """AdamW before the rate, which follows the global step and not the group's own counter."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(self.config.weight_decay))


def _groups(tree: dict) -> dict[str, dict]:
  return {
    'encoders': {part: value for part, value in tree.items() if part not in GRAPH_PARTS},
    'graph': {part: value for part, value in tree.items() if part in GRAPH_PARTS},
  }
