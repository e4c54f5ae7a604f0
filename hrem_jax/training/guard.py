"""Updates from losses or gradients that are not finite: skipped, counted, and after too many in a row the end."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from hrem_jax.errors import UserError


def all_finite(tree) -> Bool[Array, '']:
  """Whether no number of the tree is NaN or infinite; integers are finite."""
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def choose(condition: Bool[Array, ''], ours, theirs):
  """`ours` or, where the scalar is False, `theirs`, bit for bit. Until it is known, both are held."""
  return jax.tree.map(lambda mine, other: jnp.where(condition, mine, other), ours, theirs)


class Guard:
  """Ends a training whose updates are all skipped.

  The counter of a step is read when the next step is already under way: the device never waits for it. Who saves or
  evaluates calls `settle` before. So the decision depends on the steps alone, not on restarts.

  Args:
    max_skipped_steps: How many skipped updates in a row are one too many.
    last_checkpoint: Says where the training could go on.
  """

  def __init__(self, max_skipped_steps: int, last_checkpoint: Callable[[], str]):
    self._max_skipped_steps, self._last_checkpoint = max_skipped_steps, last_checkpoint
    self._waiting = None

  def watch(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of the update that led to `step` and looks at those of the one before."""
    self.settle()
    self._waiting = step, metrics

  def settle(self) -> None:
    """Looks at the newest update, for which it waits.

    Raises:
      UserError: It is the last of too many skipped ones.
    """
    if self._waiting is None:
      return
    (step, metrics), self._waiting = self._waiting, None
    in_a_row = int(metrics['skipped_in_a_row'])
    if in_a_row < self._max_skipped_steps:
      return
    values = {name: float(value) for name, value in metrics.items()}
    broken = [f'{name} {value}' for name, value in values.items() if not math.isfinite(value)]
    raise UserError(
      f'step {step}: the last {in_a_row} updates were skipped (config.training.max_skipped_steps), not finite '
      f'was: {", ".join(broken) or "an embedding or a BatchNorm statistic"}; {self._last_checkpoint()}; expected are '
      'finite features and a config.optimizer.learning_rate with which the training does not diverge'
    )
