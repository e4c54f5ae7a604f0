"""Files that are whole or not there."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path` to write to; it takes the place of `path` only if nothing was raised."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # Not the process id, which is 1 in every container. The suffix stays: numpy.save looks at it.
  temporary = path.with_name(f'.{secrets.token_hex(4)}.{path.name}')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8')
