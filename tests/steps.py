"""The static options of HREM's training step, before the warm-up's end or after it; its optimizer's state."""

import jax
import optax


def options(method, optimizer, *, graph: bool) -> dict:
  return dict(
    method=method,
    optimizer=optimizer,
    phase='graph' if graph else 'base',
    active=optimizer.active(method.warmup_steps if graph else 0),
  )


def adam(state, group: str) -> optax.ScaleByAdamState:
  """The count and the moments of a group of parameters."""

  def is_adam(x) -> bool:
    return isinstance(x, optax.ScaleByAdamState)

  (found,) = filter(is_adam, jax.tree.leaves(state.optimizer.inner_states[group], is_leaf=is_adam))
  return found
