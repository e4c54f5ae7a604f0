"""A system that refuses: folders that are mounted read-only, files that may not grow. Nobody need be root for it."""

import contextlib
import errno
import functools
import os
import pathlib
import resource
import sys
from collections.abc import Iterator

import jax

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {'os.mkdir', 'os.rmdir', 'os.remove', 'os.rename', 'os.link', 'os.symlink', 'os.truncate', 'os.chmod'}

_read_only: list[str] = []  # folders


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
  """What Python's calls would change in the folder or below is refused, as if it were mounted so."""
  _install()
  _read_only.append(f'{folder.absolute()}/')
  try:
    yield
  finally:
    _read_only.pop()


@contextlib.contextmanager
def small_files(_: pathlib.Path, most: int = 3000) -> Iterator[None]:
  """A file gets no larger than `most` bytes, whoever writes it: what a full disk and a quota do in the middle of it."""
  # Whether there is a cache is found out once a process; what compiles in less than so many seconds never enters it.
  limits, kept = resource.getrlimit(resource.RLIMIT_FSIZE), jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1e9)
  resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', kept)


def _refuse(event: str, arguments: tuple) -> None:
  """Raises where the kernel would."""
  if not _read_only or not (event == 'open' or event in CHANGES):
    return
  for path in arguments[: 2 if event in ('os.rename', 'os.link') else 1]:
    if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(tuple(_read_only)):
      continue
    if event == 'open' and not _is_writing(*arguments[1:]):
      continue
    is_there, has_place = os.path.lexists(path), os.path.isdir(os.path.dirname(os.path.abspath(path)))
    if not has_place or (event != 'open' and is_there == (event == 'os.mkdir')):
      continue  # the kernel looks first whether there is something in the way, or nothing to change
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))


def _is_writing(mode: str | None, flags: int) -> bool:
  return bool(flags & WRITING) if mode is None else bool(set(mode) & set('wax+'))


@functools.cache
def _install() -> None:
  sys.addaudithook(_refuse)  # once: there is no way to take it away
