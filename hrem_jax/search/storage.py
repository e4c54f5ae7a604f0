"""Files that are on the disk when a call returns, and whole or not there, whenever the machine stops."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hrem_jax.errors import UserError
from hrem_jax.files import lock

LOCK = 'lock'


@dataclasses.dataclass(frozen=True)
class Stamp:
  """What a file was when it was written."""

  bytes: int
  sha256: str


def write_file(path: pathlib.Path, parts: Iterable[bytes | memoryview]) -> Stamp:
  """Writes a file from its parts, one after the other; it is on the disk, its name perhaps not yet."""
  digest, size = hashlib.sha256(), 0
  file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
  try:
    for part in parts:
      view = memoryview(part).cast('B')
      digest.update(view)
      size += len(view)
      while len(view):
        view = view[os.write(file, view) :]
    os.fsync(file)
  finally:
    os.close(file)
  return Stamp(size, digest.hexdigest())


def replace_file(path: pathlib.Path, content: bytes) -> None:
  """The file has the old content or the new one, never anything else."""
  temporary = path.with_name(f'.{path.name}')
  write_file(temporary, [content])
  os.replace(temporary, path)
  sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
  """The names in a folder are on the disk."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def check_size(path: pathlib.Path, stamp: Stamp) -> None:
  """Raises UserError where a file is missing or has another size than it was written with."""
  try:
    size = path.stat().st_size
  except OSError as error:
    raise UserError(f'{path}: {error.strerror}; the index is damaged') from error
  if size != stamp.bytes:
    raise UserError(f'{path}: {size} bytes, expected {stamp.bytes}: the index is damaged')


def read_checked(path: pathlib.Path, stamp: Stamp) -> bytes:
  """The content of a small file; UserError where it is not what was written."""
  check_size(path, stamp)
  content = path.read_bytes()
  if hashlib.sha256(content).hexdigest() != stamp.sha256:
    raise _changed(path)
  return content


def check_content(path: pathlib.Path, stamp: Stamp) -> None:
  """Raises UserError where a file, of any size, is not what was written."""
  check_size(path, stamp)
  with path.open('rb') as file:
    if hashlib.file_digest(file, 'sha256').hexdigest() != stamp.sha256:
      raise _changed(path)


def _changed(path: pathlib.Path) -> UserError:
  return UserError(f'{path}: not what was written (its SHA-256 is another): the index is damaged')


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """One writer at a time; the lock of a writer that was killed is free.

  Raises:
    UserError: Somebody else writes.
  """
  with (folder / LOCK).open('w') as file:
    if not lock(file):
      raise UserError(f'{folder}: somebody else is changing this index; try again when it is done')
    yield
