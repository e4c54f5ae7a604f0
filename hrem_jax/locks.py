"""One writer for one place: a second start is refused in one line, and the first one goes on undisturbed."""

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import IO

from hrem_jax.errors import UserError, say
from hrem_jax.leases import LeaseFile, StillOurs, about_us, hold, in_bucket, taken
from hrem_jax.paths import Folder, is_bucket

NAME = '.lock'
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # Lustre without -o flock, some NFS


@contextlib.contextmanager
def only_writer(place: Folder, *, beside: bool = False) -> Iterator[StillOurs]:
  """Holds a place until the end, however it comes: inside is the only process that writes there.

  What holds it is the kernel's lock on a file, which is gone afterwards. In buckets, and where the file system has no
  locks, it is a lease (see `hrem_jax.leases`).

  Args:
    place: A folder, which is made if missing (and gone again if nothing came into it); or a file.
    beside: Whether the file `.NAME.lock` lies beside the place, which may be a file or not there yet; else it is
      `.lock` in the folder.

  Yields:
    To be called before something is written after a long time.

  Raises:
    UserError: Another process writes there, or nothing can be written there.
  """
  path = place.with_name(f'.{place.name}{NAME}') if beside else place / NAME
  if is_bucket(path):
    with hold(in_bucket(path), place) as still_ours:
      yield still_ours
    return
  with _folder(path.parent, place):
    try:
      file = _lock(path, place)
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise UserError(f'{place}: cannot be written: {error.strerror}') from error
      path.unlink(missing_ok=True)  # made for nothing
      path = path.with_name(path.name.removesuffix(NAME) + '.lease')
      say(f'{path.parent}: this file system has no locks; a file that is renewed all the time holds other starts out')
      with hold(LeaseFile(path), place) as still_ours:
        yield still_ours
      return
    with file:
      try:
        file.write(about_us())
        file.flush()
        yield lambda: None
      finally:
        with contextlib.suppress(OSError):
          path.unlink()  # before it is free: whoever has it open then looks whether it is still there


def _lock(path: pathlib.Path, place: Folder) -> IO[str]:
  """The file, locked; raises UserError where another process has it."""
  while True:
    file = path.open('a+', encoding='utf-8', errors='replace')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if _is_there(file, path):
        file.truncate(0)
        return file
    except BlockingIOError:
      file.seek(0)
      by = file.read().strip()
      file.close()
      raise taken(place, by) from None
    except OSError:
      file.close()
      raise
    file.close()  # who had it has just ended, and deleted the file that was opened here


def _is_there(file: IO, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def _folder(folder: pathlib.Path, place: Folder) -> Iterator[None]:
  """Made where it is missing, and deleted afterwards if nothing came into it."""
  made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except (FileExistsError, NotADirectoryError) as error:
    raise UserError(f'{place}: cannot be written: there is something that is no folder in its path') from error
  except OSError as error:
    raise UserError(f'{place}: cannot be written: {error.strerror}') from error
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      for each in made:
        each.rmdir()
