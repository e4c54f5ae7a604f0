"""Checkpoints of a run: state, data position and score, written by Orbax behind the training's back."""

import pathlib

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from hrem_jax.errors import UserError
from hrem_jax.retrieval.run import CHECKPOINTS, score_of
from hrem_jax.training.state import TrainState


class Checkpoints:
  """`WORKDIR/checkpoints/STEP/{state,data,metrics}`; the newest and the best by rSum are kept, atomically written."""

  def __init__(self, workdir: pathlib.Path):
    keep = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(1),
        checkpoint_managers.BestN(get_metric_fn=score_of, n=1, keep_checkpoints_without_metrics=False),
      ]
    )
    self._folder = (workdir / CHECKPOINTS).absolute()
    options = ocp.CheckpointManagerOptions(best_fn=score_of, best_mode='max', preservation_policy=keep)
    self._manager = ocp.CheckpointManager(self._folder, options=options)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._manager.close()  # waits for what is being written

  def save(self, state: TrainState, iterator: grain.DatasetIterator, metrics: dict[str, float] | None) -> None:
    """Starts saving and returns; `metrics` are those of the selection split where this step was evaluated."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator))
    self._manager.save(step, args=items, metrics=metrics)

  def restore_latest(self, state: TrainState, iterator: grain.DatasetIterator) -> TrainState:
    """The newest state, and the iterator moved to where it was; `state` as it is where there is no checkpoint.

    Args:
      state: Gives shapes, types and where each array shall lie; its values are not looked at.
      iterator: Changed in place.
    """
    step = self._manager.latest_step()
    if step is None:
      return state
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore(abstract), data=grain.checkpoint.CheckpointRestore(iterator)
    )
    try:
      return self._manager.restore(step, args=items)['state']
    except (OSError, ValueError, KeyError) as error:
      raise UserError(f'{self._folder / str(step)}: this checkpoint cannot be restored: {error}') from error

  def wait(self) -> None:
    """Until everything that was saved is on disk."""
    self._manager.wait_until_finished()

  @property
  def best_metrics(self) -> dict[str, float] | None:
    """The metrics of the best checkpoint, None before the first evaluation."""
    step = self._manager.best_step()
    return None if step is None else self._manager.metrics(step)
