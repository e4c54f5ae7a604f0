"""Files that are whole or not there."""

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from hrem_jax.errors import UserError, one_line


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path` to write to; it takes the place of `path` only if nothing was raised.

  Raises:
    OSError: Of the kind that occurred, with the name of `path`, which is as it was.
  """
  path = pathlib.Path(path)
  # Not the process id, which is 1 in every container. The suffix stays: numpy.save looks at it.
  temporary = path.with_name(f'.{secrets.token_hex(4)}.{path.name}')
  made = _missing_parents(path)
  try:
    blocker = next(folder for folder in path.parents if os.path.lexists(folder))
    if not blocker.is_dir():
      raise OSError(errno.ENOTDIR, f'{blocker} is no folder')
    if path.exists() and not path.is_file():  # a device, say, which a file would take the place of
      raise OSError(errno.EISDIR if path.is_dir() else errno.EEXIST, 'there is something that is no file')
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
      for folder in made:
        folder.rmdir()
    if error.errno is None:
      raise
    raise OSError(error.errno, f'cannot be written: {error.strerror}', str(path)) from error
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def _missing_parents(path: pathlib.Path) -> list[pathlib.Path]:
  """The folders that have to be made for a file, the innermost first."""
  return [folder for folder in path.parents if not os.path.lexists(folder)]


def write_text(path: str | os.PathLike, text: str) -> None:
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def to_json(content: object, *, indent: int | None = 2) -> str:
  """JSON that every program reads: a number that is not finite, of which JSON knows none, is `null`."""
  return json.dumps(_without_nan(content), indent=indent, allow_nan=False) + '\n'


def _without_nan(content: object) -> object:
  if isinstance(content, dict):
    return {key: _without_nan(value) for key, value in content.items()}
  if isinstance(content, list | tuple):
    return [_without_nan(value) for value in content]
  return None if isinstance(content, float) and not math.isfinite(content) else content


def lock(file: IO) -> bool:
  """Whether an open file could be locked: until it is closed, or its process is gone, however it ends."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def read_text(path: pathlib.Path) -> str:
  """The text of a file.

  Raises:
    UserError: It cannot be read or is not UTF-8; the message names the first line that is not.
  """
  try:
    raw = path.read_bytes()
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror}') from error
  try:
    return raw.decode('utf-8')
  except UnicodeDecodeError as error:
    line = raw.count(b'\n', 0, error.start) + 1
    raise UserError(f'{path}: line {line} is not UTF-8: byte {raw[error.start]:#04x}') from error


def read_json_object(path: pathlib.Path) -> dict:
  """The object in a JSON file.

  Raises:
    UserError: It cannot be read, is not JSON (the message has the line) or is something else than an object.
  """
  try:
    content = json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: not JSON: {one_line(error)}') from error
  if not isinstance(content, dict):
    raise UserError(f'{path}: JSON of type {type(content).__name__}, expected an object')
  return content


def temporary_array(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.memmap:
  """Zeros in a mapped file without a name, which is gone with the array: for what may be larger than memory."""
  with tempfile.TemporaryFile() as file:
    reserve(file, max(math.prod(shape) * np.dtype(dtype).itemsize, 1), where=tempfile.gettempdir())
    return np.memmap(file, dtype, shape=shape)


def reserve(file: IO, size: int, *, where: str | os.PathLike) -> None:
  """Makes a file that will be mapped so long: where a disk is full, a write to the map would end the program.

  Raises:
    OSError: There is no room; `where` is named.
  """
  try:
    os.posix_fallocate(file.fileno(), 0, size)
  except OSError as error:
    raise OSError(error.errno, f'no room for {size / 1e6:.0f} MB: {error.strerror}', str(where)) from error
