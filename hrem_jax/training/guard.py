"""Updates from losses or gradients that are not finite: skipped, counted, and after too many in a row the end."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from hrem_jax.data.batch import Batch
from hrem_jax.data.outliers import far_outside, largest_values
from hrem_jax.errors import UserError, say


def all_finite(tree) -> Bool[Array, '']:
  """Whether no number of the tree is NaN or infinite; integers are finite."""
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def choose(condition: Bool[Array, ''], ours, theirs):
  """`ours` or, where the scalar is False, `theirs`, bit for bit. Until it is known, both are held."""
  return jax.tree.map(lambda mine, other: jnp.where(condition, mine, other), ours, theirs)


class Guard:
  """Says which updates were skipped and why, and ends a training whose updates are all skipped.

  The counter of a step is read when the next step is already under way: the device never waits for it. Who saves or
  evaluates calls `settle` before. So the decision depends on the steps alone, not on restarts.

  Args:
    max_skipped_steps: How many skipped updates in a row are one too many.
    last_checkpoint: Says where the training could go on.
    say: Gets a line for each skipped update.
    image_ids: Of the training images, for these lines.

  Attributes:
    num_skipped: How many updates were skipped so far, those of earlier starts included.
  """

  def __init__(
    self,
    max_skipped_steps: int,
    last_checkpoint: Callable[[], str],
    *,
    say: Callable[[str], None] = say,
    image_ids: Sequence[str] = (),
  ):
    self._max_skipped_steps, self._last_checkpoint = max_skipped_steps, last_checkpoint
    self._say, self._image_ids = say, image_ids
    self._waiting, self.num_skipped = None, 0

  def watch(self, step: int, metrics: dict[str, jax.Array], batch: Batch | None = None) -> None:
    """Takes the metrics of the update that led to `step`, and looks at those of the one before.

    Args:
      step: Counted from 1.
      metrics: What the update returned.
      batch: This process's part of what it was made of, as it lies in the host's memory.
    """
    self.settle()
    self._waiting = step, metrics, batch

  def settle(self) -> None:
    """Looks at the newest update, for which it waits.

    Raises:
      UserError: It is the last of too many skipped ones.
    """
    if self._waiting is None:
      return
    (step, metrics, batch), self._waiting = self._waiting, None
    in_a_row = int(metrics['skipped_in_a_row'])
    self.num_skipped = int(metrics.get('skipped', 0))
    if not in_a_row:
      return
    values = {name: float(value) for name, value in metrics.items()}
    broken = ', '.join(f'{name} {value}' for name, value in values.items() if not math.isfinite(value))
    cause = broken or 'what the method watches or keeps beside its parameters'
    self._say(f'UPDATE SKIPPED, step {step}: not finite was {cause}; {suspects(batch, self._image_ids)}')
    if in_a_row < self._max_skipped_steps:
      return
    raise UserError(
      f'step {step}: the last {in_a_row} updates were skipped (config.training.max_skipped_steps), not finite '
      f'was: {cause}; {self._last_checkpoint()}; expected are '
      'finite features and a config.optimizer.learning_rate with which the training does not diverge'
    )


def suspects(batch: Batch | None, image_ids: Sequence[str], *, shown: int = 8) -> str:
  """Which images of a batch an update may have been skipped for: those far outside the others, else all alike."""
  if batch is None:
    return 'its images are not known'
  with np.errstate(invalid='ignore'):
    largest = largest_values(np.asarray(batch.images.regions), np.asarray(batch.images.mask))
  is_far, rows = far_outside(largest), np.asarray(batch.image_ids)
  values = {int(row): value for row, value in zip(rows[is_far], largest[is_far], strict=True)}
  names = [f'{_name(row, image_ids)} (up to {value:.3g})' for row, value in values.items()]
  what = 'values far outside the others have its images' if names else 'none of its images stands out of'
  names = names or [_name(row, image_ids) for row in dict.fromkeys(rows.tolist())]
  return f'{what} {", ".join(names[:shown])}' + (f' and {len(names) - shown} more' if len(names) > shown else '')


def _name(row: int, image_ids: Sequence[str]) -> str:
  return repr(image_ids[row]) if row < len(image_ids) else f'row {row}'
