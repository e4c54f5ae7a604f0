"""Folders that are whole or not there."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

from hrem_jax.errors import UserError
from hrem_jax.locks import only_writer


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
    UserError: `path` is there already, another process makes it, or nothing can be written beside it.
  """
  check_new(path)
  path = path.absolute()
  temporary = path.with_name(f'.{secrets.token_hex(4)}.{path.name}')
  with only_writer(path, beside=True):
    try:
      temporary.mkdir()
      yield temporary
      os.replace(temporary, path)
    except OSError as error:
      raise UserError(f'{path}: cannot be written: {error.strerror or error}') from error
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
