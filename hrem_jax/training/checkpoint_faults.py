"""What is done and said about checkpoints that are not whole or cannot be written."""

import os
import pathlib
import re

import jax
from jax.experimental import multihost_utils

from hrem_jax.errors import one_line, say


def system_reason(error: Exception) -> str:
  """What the system says, taken out of the pages in which tensorstore and Orbax wrap it."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  found = re.findall(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(found[-1])) if found else one_line(error)[-200:]


def none_is_whole(folder: pathlib.Path, damaged: dict[int, str]) -> str:
  reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
  return f'{folder}: no whole checkpoint is there to go on from, expected at least one ({reasons})'


def set_aside(folder: pathlib.Path, damaged: dict[int, str]) -> None:
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
