"""A disk that fails at a chosen call, and forgets what was not synced: every state in which a machine can stop."""

import contextlib
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterator

CALLS = ('open', 'write', 'fsync', 'replace', 'mkdir', 'unlink', 'rmdir')


class Stopped(BaseException):
  """Nobody handles it, as nobody handles a kill."""


class UnsafeDisk:
  """Counts the calls that change files below a folder, and stops at one of them and at all that follow.

  Args:
    folder: What is looked at.
    stop_at: The number of the call that does not happen, counted from 1; of a write, the first half happens.
    stop: What is done then; raises by default.
    forgets: What was not synced is lost: contents of files and names in folders.
  """

  def __init__(
    self, folder: pathlib.Path, stop_at: int | None, *, stop: Callable[[], None] | None = None, forgets: bool = False
  ):
    self._folder, self._stop_at, self._stop, self._forgets = folder.resolve(), stop_at, stop, forgets
    self.calls: list[str] = []
    self._real = {name: getattr(os, name) for name in CALLS}
    self._opened: dict[int, pathlib.Path] = {}
    self._unsynced: set[pathlib.Path] = set()  # files whose content may be lost
    self._undo: list[tuple[pathlib.Path, Callable[[], None]]] = []  # names that may be lost, by folder

  @contextlib.contextmanager
  def mounted(self) -> Iterator['UnsafeDisk']:
    for name in CALLS:
      setattr(os, name, getattr(self, f'_{name}'))
    try:
      yield self
    finally:
      for name, call in self._real.items():
        setattr(os, name, call)

  @property
  def has_stopped(self) -> bool:
    return self._stop_at is not None and len(self.calls) >= self._stop_at

  def forget(self) -> None:
    """After the stop: the disk as the machine finds it when it starts again."""
    if self._forgets:
      for path in self._unsynced:
        if path.is_file():
          path.write_bytes(b'')
      for _, undo in reversed(self._undo):
        undo()

  def _counts(self, name: str, path: pathlib.Path | None) -> bool:
    """Whether the call is about the folder; stops where it is the one."""
    if path is None or not path.is_relative_to(self._folder):
      return False
    self.calls.append(f'{name} {path.relative_to(self._folder)}')
    if self.has_stopped:
      if name == 'write' and len(self.calls) == self._stop_at:
        return True
      (self._stop or self._raise)()
    return True

  def _raise(self) -> None:
    raise Stopped

  def _open(self, path, flags, mode=0o777, *, dir_fd=None):
    where = _path(path, dir_fd)
    is_new = bool(flags & os.O_CREAT) and where is not None and not where.exists()
    if flags & os.O_WRONLY:
      self._counts('open', where)
    file = self._real['open'](path, flags, mode, dir_fd=dir_fd)
    if where is not None:
      self._opened[file] = where
      if is_new:
        self._undo.append((where.parent, lambda: where.unlink(missing_ok=True)))
    return file

  def _write(self, file, content):
    path = self._opened.get(file)
    if self._counts('write', path):
      self._unsynced.add(path)
      if self.has_stopped:
        self._real['write'](file, bytes(content)[: len(content) // 2])
        (self._stop or self._raise)()
    return self._real['write'](file, content)

  def _fsync(self, file):
    path = self._opened.get(file)
    self._counts('fsync', path)
    if stat.S_ISDIR(os.fstat(file).st_mode):
      self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]
    else:
      self._unsynced.discard(path)

  def _replace(self, source, target):
    source, target = _path(source), _path(target)
    self._counts('replace', target)
    old = target.read_bytes() if target.exists() else None
    if source in self._unsynced:
      self._unsynced.add(target)
    self._real['replace'](source, target)
    self._undo.append((target.parent, lambda: target.unlink() if old is None else target.write_bytes(old)))

  def _mkdir(self, path, mode=0o777, *, dir_fd=None):
    where = _path(path, dir_fd)
    self._counts('mkdir', where)
    self._real['mkdir'](path, mode, dir_fd=dir_fd)
    self._undo.append((where.parent, lambda: shutil.rmtree(where, ignore_errors=True)))

  def _unlink(self, path, *, dir_fd=None):
    self._counts('unlink', _path(path, dir_fd))
    self._real['unlink'](path, dir_fd=dir_fd)

  def _rmdir(self, path, *, dir_fd=None):
    self._counts('rmdir', _path(path, dir_fd))
    self._real['rmdir'](path, dir_fd=dir_fd)


def _path(path, folder: int | None = None) -> pathlib.Path | None:
  """Absolute; a name in an open folder, too."""
  if isinstance(path, int):
    return None
  base = pathlib.Path(os.readlink(f'/proc/self/fd/{folder}')) if folder is not None else pathlib.Path.cwd()
  return base / os.fspath(path)
