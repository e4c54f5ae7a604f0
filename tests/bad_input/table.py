"""What a case is, and how one is tried."""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
import re
import sys
from collections.abc import Callable
from unittest import mock

from absl import flags
from absl.testing import flagsaver

import hrem_jax.main
from hrem_jax import cli

Break = Callable[[pathlib.Path], object]


@dataclasses.dataclass(frozen=True)
class Case:
  """One broken input.

  Attributes:
    what: What is wrong, for a person; unique.
    command: What is called, `W` standing for the folder of the world (see `world.py`). It begins with `main` (for
      `python -m hrem_jax.main`) or is a command of `python -m hrem_jax`.
    message: A regular expression that is found in the line, the folder of the world taken out.
    breaks: Changes the world.
    begun: The training was under way: these paths may be new, and lines of its progress stand before the message.
    under: Holds while the command runs, given the world: a system that refuses (see `refusing.py`).
  """

  what: str
  command: str
  message: str
  breaks: Break = lambda world: None
  begun: tuple[str, ...] = ()
  under: Callable[[pathlib.Path], contextlib.AbstractContextManager] = contextlib.nullcontext


@dataclasses.dataclass(frozen=True)
class Outcome:
  status: object
  errors: list[str]  # lines on standard error
  before: dict[str, str]
  after: dict[str, str]

  @property
  def line(self) -> str:
    return self.errors[-1] if self.errors else ''


def attempt(case: Case, world: pathlib.Path) -> Outcome:
  """Breaks the world and calls the program in this process."""
  case.breaks(world)
  before = tree(world)
  arguments = [re.sub(r'(^|=)W/', rf'\1{world}/', part) for part in case.command.split()]
  errors, status, is_main = io.StringIO(), 0, arguments[:1] == ['main']
  arguments = arguments[1:] if is_main else arguments
  argv = mock.patch.object(sys, 'argv', ['hrem_jax', *arguments])  # settings are looked for there, too
  with argv, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors), case.under(world):
    try:
      main() if is_main else cli.run(arguments)
    except SystemExit as end:
      status = end.code
  lines = errors.getvalue().replace(f'{world}/', '').replace(str(world), '.').splitlines()
  return Outcome(status, lines, before, tree(world))


def main() -> None:
  """`python -m hrem_jax.main`, its flags as before afterwards."""
  saved = flagsaver.save_flag_values()
  flags.FLAGS.unparse_flags()
  try:
    hrem_jax.main.run()
  finally:
    flagsaver.restore_flag_values(saved)
    for name in [name for name, module in sys.modules.items() if 'get_config' in vars(module)]:
      del sys.modules[name]  # the next file is executed into the same module


def tree(folder: pathlib.Path) -> dict[str, str]:
  """Every file and folder below, hidden ones too: the size and checksum of its content."""
  return {
    path.relative_to(folder).as_posix(): _content(path)
    for path in sorted(folder.rglob('*'))
    if '__pycache__' not in str(path)
  }


def _content(path: pathlib.Path) -> str:
  if path.is_symlink() or not path.is_file():
    return 'link' if path.is_symlink() else 'folder'
  return f'{path.stat().st_size} bytes {hashlib.sha256(path.read_bytes()).hexdigest()}'
