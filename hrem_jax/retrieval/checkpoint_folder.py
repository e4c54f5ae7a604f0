"""Where the checkpoints of a run lie, and how Orbax gets along with the folder's name."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import orbax.checkpoint as ocp
from etils import epath

from hrem_jax.errors import UserError
from hrem_jax.paths import BUCKET, Folder, is_bucket

CHECKPOINTS = 'checkpoints'


def checkpoint_folder(workdir: Folder) -> Folder:
  """`WORKDIR/checkpoints` as a whole path, links followed: of `a/link/..` Orbax would make `a`.

  Raises:
    UserError: Orbax or tensorstore would write somewhere else than the name says, or fail at the first checkpoint.
  """
  in_bucket = is_bucket(workdir)
  folder = workdir / CHECKPOINTS if in_bucket else workdir.resolve() / CHECKPOINTS
  name = str(folder).removeprefix(BUCKET)
  wrong = re.search(r'[][*?#%\\]|//' if in_bucket else r'\\|(gs|s3):(?=/)|[^\0-\ud7ff\ue000-\U0010ffff]', name)
  if wrong:
    raise UserError(f'{str(folder)!r}: checkpoints cannot be kept in a folder with {wrong[0]!a} in its name')
  return folder


class StateHandler(ocp.StandardCheckpointHandler):
  """Orbax's, in folders of any name: it looks for what the processes wrote with the folder's name as a pattern."""

  def finalize(self, directory: epath.Path) -> None:
    super().finalize(_Literal(directory))


@ocp.args.register_with_handler(StateHandler, for_save=True)
@dataclasses.dataclass
class StateSave(ocp.args.StandardSave):
  """Arguments find their handler by its class."""


@ocp.args.register_with_handler(StateHandler, for_restore=True)
@dataclasses.dataclass
class StateRestore(ocp.args.StandardRestore):
  """The same for reading."""


class _Literal(type(epath.Path())):
  """A path of which only what is asked for is a pattern."""

  def glob(self, pattern: str) -> Iterator[epath.Path]:
    if is_bucket(self):
      return super().glob(pattern)
    return map(epath.Path, pathlib.Path(self).glob(pattern))
