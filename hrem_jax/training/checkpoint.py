"""Checkpoints of a run: state, data position and score, written by Orbax behind the training's back."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from hrem_jax.errors import UserError, one_line, say
from hrem_jax.retrieval.checkpoint_folder import StateRestore, StateSave, checkpoint_folder
from hrem_jax.retrieval.checksums import CHECKSUMS, verify, write_checksums
from hrem_jax.retrieval.run import check_scores, restore_variables, score_of, step_folders
from hrem_jax.training.guard import all_finite
from hrem_jax.training.orbax_noise import hush
from hrem_jax.training.state import TrainState

DELETED = '.deleted'  # in the folder of the checkpoints: what is moved there in one go is deleted in peace
COMPRESSED = 0.8  # a checkpoint has at least this share of the bytes in memory, once the moments are not zero


class _OfAnotherVersionError(UserError):
  """A whole checkpoint that means something else."""


class Checkpoints:
  """`WORKDIR/checkpoints/STEP/{state,data,metrics}`; the newest and the best by rSum are kept, atomically written.

  Orbax writes to a temporary folder that becomes `STEP` when whole, and only then removes what is not kept any more.

  Raises:
    UserError: There are checkpoints, and none of them is whole.
  """

  def __init__(self, workdir: pathlib.Path):
    keep = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(1),
        checkpoint_managers.BestN(get_metric_fn=score_of, n=1, keep_checkpoints_without_metrics=False),
      ]
    )
    self._workdir, self._folder = workdir, checkpoint_folder(workdir)
    self._set_aside_without_scores()
    options = ocp.CheckpointManagerOptions(
      best_fn=score_of,
      best_mode='max',
      preservation_policy=keep,
      cleanup_tmp_directories=True,  # what a killed run was writing
      todelete_subdir=DELETED,  # a run killed while it deletes leaves no half of a checkpoint
    )
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    hush()
    self._all_finite = jax.jit(all_finite)
    self._thread, self._sealing = futures.ThreadPoolExecutor(1), []
    self._is_closing = threading.Event()
    self.tidy()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    try:
      with self._writing():
        self._manager.close()  # waits for what is being written
    finally:
      self._is_closing.set()
      self._thread.shutdown()
    self.tidy()

  def save(self, state: TrainState, iterator: grain.DatasetIterator, metrics: dict[str, float] | None) -> None:
    """Starts saving and returns; `metrics` are those of the selection split where this step was evaluated.

    Raises:
      UserError: A number of the state is not finite: such a state takes no good one's place; or there is no room.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    if not self._all_finite((state.params, state.collections, state.optimizer)):
      raise UserError(f'step {step}: the parameters are not finite and are not saved; {self.describe_newest()}')
    self.wait()  # what is sealed must not be deleted meanwhile
    self._check_room(state)
    items = ocp.args.Composite(state=StateSave(state.to_tree()), data=grain.checkpoint.CheckpointSave(iterator))
    with self._writing():
      self._manager.save(step, args=items, metrics=metrics)
    if jax.process_index() == 0:
      self._sealing.append(self._thread.submit(self._seal, self._folder / str(step)))

  def _check_room(self, state: TrainState) -> None:
    """Before half of a checkpoint is written; what is there and not kept any more is deleted only after that."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(self._folder).free
    if jax.process_index() == 0 and free < COMPRESSED * needed:
      raise UserError(
        f'{self._folder}: no room for the checkpoint of step {int(state.step)}: expected are {needed:,} bytes, '
        f'found {free:,}; {self.describe_newest()}'
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """What Orbax raises, often later and of other kinds than the system's, where a disk cannot be written."""
    try:
      yield
    except Exception as error:
      if not isinstance(error, OSError) and 'os_error_code' not in str(error):
        raise
      raise UserError(
        f'{self._folder}: a checkpoint cannot be written: {_reason(error)}; expected are files that this user may '
        'write, and room for one checkpoint more than those that are kept'
      ) from error

  def _seal(self, folder: pathlib.Path) -> None:
    """Adds checksums to a checkpoint as soon as it is there; without them it is no less a checkpoint."""
    while not folder.is_dir() and not self._is_closing.wait(0.05):
      pass
    with contextlib.suppress(OSError):
      if folder.is_dir():
        write_checksums(folder)

  def restore_latest(self, shapes: TrainState, iterator: grain.DatasetIterator) -> TrainState | None:
    """The newest whole state, and the iterator moved to where it was; None where there is no checkpoint.

    What is newer but damaged, and a damaged best one, is named on standard error and renamed to `STEP.damaged`.

    Args:
      shapes: `ShapeDtypeStruct`s that say where each array shall lie, too.
      iterator: Changed in place.

    Raises:
      UserError: There are checkpoints, and none of them is whole; they stay as they are.
    """
    damaged = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      restored, reason = self._try(self._restore, step, shapes, iterator)
      if restored is not None:
        _set_aside(self._folder, damaged)
        self._manager.reload()
        self._check_best(step)
        return restored
      damaged[step] = reason
    if damaged:
      raise UserError(_none_is_whole(self._folder, damaged))
    return None

  def _restore(self, step: int, shapes: TrainState, iterator: grain.DatasetIterator) -> TrainState:
    folder = self._folder / str(step)
    verify(folder)  # what Orbax says of damaged files goes on for pages
    stored = ocp.PyTreeCheckpointHandler().metadata(folder / 'state').tree
    if 'inner_states' not in stored.get('optimizer', {}):
      raise _OfAnotherVersionError(
        f'{folder}: written by an earlier version of hrem_jax, or by `convert`, without our optimizer; the '
        'run can be evaluated, searched with and exported as it is, and trained anew in another --workdir'
      )
    items = ocp.args.Composite(state=StateRestore(shapes.to_tree()))
    restored = self._manager.restore(step, args=items)['state']
    positions = sorted((folder / 'data').glob('process_*.json'))
    if not positions:
      raise FileNotFoundError('data/process_*.json is missing')
    # The same on all processes, however many there were.
    iterator.set_state(json.loads(positions[0].read_text('utf-8')))
    return TrainState.from_tree(restored)

  def _check_best(self, newest: int) -> None:
    """Now, not at the end of the training: what chooses among the others can then be trained for."""
    while (best := self._manager.best_step()) not in (None, newest):
      _, reason = self._try(self._check, best)
      if not reason:
        return
      _set_aside(self._folder, {best: reason})
      self._manager.reload()

  def _check(self, step: int) -> None:
    """Raises where a checkpoint cannot be evaluated; where there are checksums, no array is read for it."""
    folder = self._folder / str(step)
    if (folder / CHECKSUMS).is_file():
      verify(folder)
    else:
      restore_variables(self._workdir, step)

  def _set_aside_without_scores(self) -> None:
    """Orbax reads all scores when it opens the folder, and one that cannot be read would be the end."""
    steps, damaged = step_folders(self._folder), {}
    for step in steps:
      _, reason = self._try(check_scores, self._folder / str(step))
      if reason:
        damaged[step] = reason
    if damaged and len(damaged) == len(steps):
      raise UserError(_none_is_whole(self._folder, damaged))
    _set_aside(self._folder, damaged)

  def _try(self, read: Callable, *arguments) -> tuple:
    """What `read` returns and '', or None and what is wrong; the same on all processes."""
    result, reason = None, ''
    try:
      result = read(*arguments)
    except (PermissionError, MemoryError, jax.errors.JaxRuntimeError, _OfAnotherVersionError):
      raise  # no fault of the files
    except Exception as error:  # Orbax raises all kinds, bare `Exception` among them
      reason = one_line(error)[:400] or type(error).__name__
    if jax.process_count() > 1:
      is_damaged = multihost_utils.process_allgather(np.asarray(bool(reason)))
      reason = reason or ('damaged for another process' if is_damaged.any() else '')
    return (None if reason else result), reason

  def describe_newest(self) -> str:
    """For messages; waits for what is being written."""
    self.wait()
    step = self._manager.latest_step()
    return 'there is no checkpoint yet' if step is None else f'the last good checkpoint is {self._folder / str(step)}'

  def wait(self) -> None:
    """Until everything that was saved is on disk."""
    with self._writing():
      self._manager.wait_until_finished()
    while self._sealing:
      self._sealing.pop().result()
    self.tidy()

  def tidy(self) -> None:
    """Deletes the files of checkpoints that are not kept any more."""
    if jax.process_index() == 0:
      shutil.rmtree(self._folder / DELETED, ignore_errors=True)


def _reason(error: Exception) -> str:
  """What the system says, taken out of the pages in which tensorstore and Orbax wrap it."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  found = re.findall(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(found[-1])) if found else one_line(error)[-200:]


def _none_is_whole(folder: pathlib.Path, damaged: dict[int, str]) -> str:
  reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
  return f'{folder}: no whole checkpoint is there to go on from, expected at least one ({reasons})'


def _set_aside(folder: pathlib.Path, damaged: dict[int, str]) -> None:
  """Renames folders, so that their steps can be saved again, and says so."""
  if jax.process_index() == 0:
    for step, reason in damaged.items():
      names = [f'{step}.damaged', *(f'{step}.damaged{number}' for number in range(2, 1000))]
      path = next(path for path in map(folder.joinpath, names) if not path.exists())
      (folder / str(step)).rename(path)
      reason = reason.removeprefix(f'{folder / str(step)}: ')
      say(f'DAMAGED CHECKPOINT {folder / str(step)}: {reason}')
      say(f'it is now {path.name} and is not used')
  if damaged and jax.process_count() > 1:
    multihost_utils.sync_global_devices('damaged checkpoints are set aside')
