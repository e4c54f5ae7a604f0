"""What holds a place where there are no locks: an entry that its holder renews until it ends.

A start that finds an entry watches it: if it changes, its holder is alive and the start is refused; if it does not for
DEAD_SECONDS, its holder was killed, and the entry is taken over. No clocks are compared.
"""

import contextlib
import datetime
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import tensorstore
from etils import epath

from hrem_jax.errors import UserError, one_line, say
from hrem_jax.paths import BUCKET, Folder

BEAT_SECONDS, DEAD_SECONDS = 5.0, 30.0
StillOurs = Callable[[], None]  # raises UserError where another process has taken a place over


class Entry(Protocol):
  """One value that is changed only by who saw it last."""

  def read(self) -> tuple[str | None, bytes]:
    """What it holds, None where it is not there, and its version."""

  def write(self, content: str | None, version: bytes) -> bytes | None:
    """Writes, or deletes it with None, and returns the new version; None where it has another version by now."""


class LeaseFile:
  """A file as an `Entry`; what is in it is its version. Whoever replaces it looks once more afterwards (`_take`)."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def read(self) -> tuple[str | None, bytes]:
    try:
      content = self._path.read_bytes()
    except FileNotFoundError:
      return None, b''
    return content.decode('utf-8', 'replace'), content

  def write(self, content: str | None, version: bytes) -> bytes | None:
    if self.read()[1] != version:
      return None
    if content is None:
      self._path.unlink(missing_ok=True)
      return b''
    temporary = self._path.with_name(f'{self._path.name}.{secrets.token_hex(4)}')
    try:
      temporary.write_text(content, encoding='utf-8')
      os.replace(temporary, self._path)
    finally:
      temporary.unlink(missing_ok=True)
    return content.encode()


class BucketObject:
  """An object as an `Entry`: the bucket itself refuses what would replace a version that is no longer there."""

  def __init__(self, store: tensorstore.KvStore, key: str):
    self._store, self._key = store, key

  def read(self) -> tuple[str | None, bytes]:
    found = self._store.read(self._key).result()
    content = bytes(found.value).decode('utf-8', 'replace') if found.state == 'value' else None
    return content, found.stamp.generation

  def write(self, content: str | None, version: bytes) -> bytes | None:
    value = None if content is None else content.encode()
    return self._store.write(self._key, value, if_equal=version).result().generation or None


def in_bucket(path: epath.Path) -> BucketObject:
  bucket, _, folder = str(path.parent).removeprefix(BUCKET).partition('/')
  store = tensorstore.KvStore.open({'driver': 'gcs', 'bucket': bucket, 'path': f'{folder}/'}).result()
  return BucketObject(store, path.name)


@contextlib.contextmanager
def hold(entry: Entry, place: Folder) -> Iterator[StillOurs]:
  """Has the entry until the end.

  Raises:
    UserError: Another process has it.
  """
  owner = f'{about_us()}, {secrets.token_hex(8)}'
  try:
    version = _take(entry, owner, place)
  except (OSError, ValueError) as error:  # no bucket, no right, no network
    raise UserError(f'{place}: cannot be written: {one_line(error)[:300]}') from error
  lease = _Lease(entry, owner, version, place)
  try:
    yield lease.check
  finally:
    lease.end()


def about_us() -> str:
  """For whom finds the place taken."""
  return f'process {os.getpid()} on {socket.gethostname()} since {datetime.datetime.now():%Y-%m-%d %H:%M:%S}'


def taken(place: Folder, by: str) -> UserError:
  who = f' ({by.partition(",")[0][:200]})' if by else ''
  return UserError(f'{place}: another process writes there{who}; wait until it has ended, or take another place')


def _take(entry: Entry, owner: str, place: Folder) -> bytes:
  content, version = entry.read()
  if content is not None:
    version = _watch(entry, content, version, place)
  ours = entry.write(f'{owner}, 0', version)
  if content is not None and ours is not None:
    time.sleep(BEAT_SECONDS / 2)  # of files another start may have replaced the same one at the same time
    if entry.read()[0] != f'{owner}, 0':
      ours = None
  if ours is None:
    raise taken(place, entry.read()[0] or '')
  return ours


def _watch(entry: Entry, content: str, version: bytes, place: Folder) -> bytes:
  """The version to replace, once its holder has been still for long."""
  say(
    f'{place}: {content.partition(",")[0]} has not said that it ended; waiting {DEAD_SECONDS:.0f} s whether it is alive'
  )
  still_until = time.monotonic() + DEAD_SECONDS
  while time.monotonic() < still_until:
    time.sleep(BEAT_SECONDS / 5)
    found, its_version = entry.read()
    if found is None:
      return its_version  # it ended meanwhile
    if (found, its_version) != (content, version):
      raise taken(place, found)
  return version


class _Lease:
  """Renewed by a thread until it is lost or ended."""

  def __init__(self, entry: Entry, owner: str, version: bytes, place: Folder):
    self._entry, self._owner, self._version, self._place = entry, owner, version, place
    self._is_ending, self._is_lost = threading.Event(), False
    self._thread = threading.Thread(target=self._renew, name='lease', daemon=True)
    self._thread.start()

  def check(self) -> None:
    if self._is_lost:
      raise UserError(
        f'{self._place}: this process was still for more than {DEAD_SECONDS:.0f} s, and another one writes there now'
      )

  def end(self) -> None:
    self._is_ending.set()
    self._thread.join()
    if not self._is_lost:
      with contextlib.suppress(OSError, ValueError):  # who comes next waits
        self._entry.write(None, self._version)

  def _renew(self) -> None:
    beat, renewed = 0, time.monotonic()
    while not self._is_ending.wait(BEAT_SECONDS):
      beat += 1
      try:
        version = self._entry.write(f'{self._owner}, {beat}', self._version)
        if version is None:  # perhaps written, and the answer was lost
          content, found = self._entry.read()
          version = found if (content or '').startswith(self._owner) else None
      except (OSError, ValueError):  # the network: tensorstore raises both
        if time.monotonic() - renewed < DEAD_SECONDS:
          continue
        version = None
      if version is None:
        self._is_lost = True
        return
      self._version, renewed = version, time.monotonic()
