"""Updates by groups of parameters: who learns how fast, and from when on (METHOD section 5)."""

import dataclasses
import functools
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Float, Int

from hrem_jax.methods.method import Group

REST = Group()  # everything that no other group names


def label(group: Group) -> str:
  """The name of a group in the optimizer's state and in checkpoints."""
  return group.prefix.replace('/', '.') or 'rest'


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """The kinds, rates and clipping of the section `optimizer`, for each of some groups.

  A group has moments of its own, counted from its first update; a frozen one has none, and costs no memory. Before its
  first step a group gets no gradient, no decay and no moment update.

  Attributes:
    config: The section `optimizer` of a configuration.
    groups: Beside `REST`.
    steps_per_epoch, num_steps: For the schedule.
  """

  config: ml_collections.ConfigDict
  groups: tuple[Group, ...]
  steps_per_epoch: int
  num_steps: int

  def group_of(self, path: tuple[str, ...]) -> Group:
    """The group with the longest prefix of the path."""
    fits = [group for group in (REST, *self.groups) if path[: len(_parts(group))] == _parts(group)]
    return max(fits, key=lambda group: len(_parts(group)))

  def active(self, step: int) -> tuple[str, ...]:
    """The groups that the update after `step` updates changes, by label: a program of its own for each such set."""
    return tuple(label(group) for group in (REST, *self.groups) if group.rate_factor and step >= group.first_step)

  def freeze(self, params: dict) -> dict:
    """Cuts the gradient of what has rate 0: it stays as it is and costs no backward pass."""
    return self._map(lambda group, x: x if group.rate_factor else jax.lax.stop_gradient(x), params)

  def init(self, params: dict) -> optax.OptState:
    return self._transformation(lambda group: 0.0, self.active(self.num_steps)).init(params)

  def rate(self, group: Group, step: Int[Array, ''] | int) -> Float[Array, '']:
    """The learning rate of a group after `step` updates: that of its epoch, and of the triangle where there is one."""
    config = self.config
    epochs = config.decay_epochs if group.decay_epochs is None else group.decay_epochs
    factor = config.decay_factor if group.decay_factor is None else group.decay_factor
    boundaries = jnp.asarray([epoch * self.steps_per_epoch for epoch in epochs])
    rate = config.learning_rate * group.rate_factor * factor ** jnp.sum(step >= boundaries)
    if not config.triangle:
      return rate
    share = step / self.num_steps
    return rate * jnp.where(share < config.triangle, share / config.triangle, (1 - share) / (1 - config.triangle))

  def update(
    self, grads: dict, state: optax.OptState, params: dict, step: Int[Array, ''] | int, *, active: tuple[str, ...]
  ) -> tuple[dict, optax.OptState, dict[str, Float[Array, '']]]:
    """One update.

    Args:
      grads, params: Whole trees; the gradients of groups that are not active are not looked at.
      state: As from `init`.
      step: Updates done so far; sets the rates.
      active: Static, as from `active`.

    Returns:
      New params, new state, and metrics: the gradient norm before clipping and the base rate.
    """
    grads, norm = self._clip(grads, active)
    transformation = self._transformation(functools.partial(self.rate, step=step), active)
    updates, state = transformation.update(grads, state, params)
    return optax.apply_updates(params, updates), state, {'gradient_norm': norm, 'learning_rate': self.rate(REST, step)}

  def _clip(self, grads: dict, active: tuple[str, ...]) -> tuple[dict, Float[Array, '']]:
    """Gradients scaled to the norm that is allowed, and the norm of all that are active before that."""
    is_active = self._map(lambda group, _: label(group) in active, grads)
    chosen = [g for g, active in zip(*map(jax.tree.leaves, (grads, is_active)), strict=True) if active]
    norm = optax.tree.norm(chosen)
    if self.config.clip == 'per_tensor':
      return jax.tree.map(lambda g: g * _scale(optax.tree.norm(g), self.config.clip_norm), grads), norm
    scale = _scale(norm, self.config.clip_norm)
    return jax.tree.map(lambda g: g * scale, grads), norm

  def _transformation(self, rate: Callable[[Group], Array | float], active: tuple[str, ...]):
    """The update of every group; those that are not active keep their state and their parameters."""
    transforms = {}
    for group in (REST, *self.groups):
      if not group.rate_factor:
        transforms[label(group)] = optax.set_to_zero()
      else:
        kind = optax.chain(KINDS[self.config.name](self.config.weight_decay), optax.scale(-rate(group)))
        transforms[label(group)] = kind if label(group) in active else _waiting(kind)
    return optax.partition(transforms, lambda params: self._map(lambda group, _: label(group), params))

  def _map(self, function: Callable, params: dict) -> dict:
    return flax.traverse_util.path_aware_map(lambda path, x: function(self.group_of(path), x), params)


def _parts(group: Group) -> tuple[str, ...]:
  return tuple(group.prefix.split('/')) if group.prefix else ()


def _scale(norm: Float[Array, ''], allowed: float) -> Float[Array, '']:
  return jnp.minimum(allowed / (norm + 1e-6), 1.0)  # the epsilon is PyTorch's


def _waiting(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
  """State as of `transformation`, which stays as it is; no change of parameters."""
  return optax.GradientTransformation(
    transformation.init, lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), state)
  )


def scale_without_bias_correction(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6):
  """`m / (sqrt(v) + eps)` with the moments as they are: the optimizer of the first BERT programs."""

  def update(updates, state, params=None):
    del params
    mu = optax.tree.update_moment(updates, state.mu, b1, 1)
    nu = optax.tree.update_moment(updates, state.nu, b2, 2)
    scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
    return scaled, optax.ScaleByAdamState(state.count + 1, mu, nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


# Before the rate, which follows the global step and not the group's own counter.
KINDS = {
  'adamw': lambda decay: optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay)),
  'adam': lambda decay: optax.chain(optax.add_decayed_weights(decay), optax.scale_by_adam()),
  'bert_adam': lambda decay: optax.chain(scale_without_bias_correction(), optax.add_decayed_weights(decay)),
}
