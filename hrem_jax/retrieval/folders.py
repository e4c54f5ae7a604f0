"""Folders that are whole or not there."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from hrem_jax.errors import UserError


def check_new(path: pathlib.Path) -> None:
  """Raises UserError where something is at `path` already, unless it is an empty folder."""
  if path.is_dir() and not any(path.iterdir()):
    return
  if path.exists() or path.is_symlink():
    raise UserError(f'{path}: exists already, expected is a new or an empty folder')


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary folder beside `path` to fill; it becomes `path` only if nothing was raised.

  Raises:
    UserError: `path` is there already, or nothing can be written beside it.
  """
  check_new(path)
  path = path.absolute()
  temporary = path.with_name(f'.{os.getpid()}.{path.name}')
  try:
    temporary.mkdir(parents=True)
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(f'{path}: cannot be written: {error.strerror or error}') from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
