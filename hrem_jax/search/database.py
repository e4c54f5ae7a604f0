"""One file of SQLite: how it is opened and changed, and what SQLite says in our words."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from hrem_jax.errors import one_line
from hrem_jax.search.index import BrokenIndex

WAIT = 60.0  # seconds for another process that is changing the same file
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED = (
  sqlite3.SQLITE_FULL,
  sqlite3.SQLITE_IOERR,
  sqlite3.SQLITE_READONLY,
  sqlite3.SQLITE_CANTOPEN,
  sqlite3.SQLITE_PERM,
)
# Where several machines see a file, they do not see each other's memory, which a write-ahead log needs.
_NETWORK = ('nfs', 'cifs', 'smb', '9p', 'afs', 'ceph', 'lustre', 'glusterfs', 'fuse.')


@contextlib.contextmanager
def told(path: pathlib.Path) -> Iterator[None]:
  """Whatever SQLite raises inside becomes a BrokenIndex of one line that says what to do."""
  try:
    yield
  except (sqlite3.Error, sqlite3.Warning, MemoryError, OverflowError, UnicodeDecodeError) as error:
    code = (getattr(error, 'sqlite_errorcode', None) or 0) & 0xFF
    reason = one_line(error) or type(error).__name__
    if code in _BUSY:
      message = 'somebody else is changing this index; try again when it is done'
    elif code in _REFUSED:
      message = f'cannot be read or written: {reason}; nothing was changed; the same again goes on when it can be'
    else:
      message = f'the index is damaged: {reason}'
    raise BrokenIndex(f'{path}: {message}') from error


def connect(path: pathlib.Path, *, make: bool = False) -> sqlite3.Connection:
  """Every statement is on its own, unless BEGIN was said."""
  address = f'file:{quote(str(path.absolute()))}?mode={"rwc" if make else "rw"}'
  return sqlite3.connect(address, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)


def open_to_write(path: pathlib.Path) -> sqlite3.Connection:
  """A connection that leaves nothing of what it deletes, and lets others read while it writes if the disk allows."""
  db = connect(path)
  db.execute('PRAGMA secure_delete=ON')
  db.execute('PRAGMA synchronous=FULL')
  db.execute('PRAGMA cache_size=-65536')
  if not is_on_a_network(path):
    db.execute('PRAGMA journal_mode=WAL')
  return db


def close(db: sqlite3.Connection) -> None:
  """At rest an index is one plain file; while others read it, its log has to stay beside it."""
  with contextlib.suppress(sqlite3.Error):
    db.execute('PRAGMA busy_timeout=1000')
    db.execute('PRAGMA journal_mode=DELETE')
  db.close()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = 'IMMEDIATE') -> Iterator[None]:
  """All that happens inside, or nothing."""
  db.execute(f'BEGIN {kind}')
  try:
    yield
    db.execute('COMMIT')
  finally:
    with contextlib.suppress(sqlite3.Error):
      if db.in_transaction:
        db.execute('ROLLBACK')


def is_on_a_network(path: pathlib.Path) -> bool:
  """Whether other machines may see the file; False where the system does not tell."""
  try:
    mounts = [line.split() for line in pathlib.Path('/proc/self/mounts').read_text().splitlines()]
  except OSError:
    return False
  around = [(mount[1], mount[2]) for mount in mounts if path.resolve().is_relative_to(_unescaped(mount[1]))]
  kind = max(around, key=lambda mount: len(mount[0]), default=('', ''))[1]
  return kind.startswith(_NETWORK)


def _unescaped(mount_point: str) -> str:
  return mount_point.replace('\\040', ' ').replace('\\011', '\t').replace('\\012', '\n').replace('\\134', '\\')
