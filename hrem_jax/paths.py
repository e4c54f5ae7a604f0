"""Paths as people write them: `~/` is home, and an address of another machine is no folder of this one."""

import os
import pathlib
import re

from etils import epath

from hrem_jax.errors import UserError

Folder = pathlib.Path | epath.Path  # of this machine, or in a bucket
BUCKET = 'gs://'
_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')  # pathlib makes `gs:/` of `gs://`


def local_path(text: str | os.PathLike) -> pathlib.Path:
  """The path that a person means.

  Raises:
    UserError: It is an address such as `gs://...`, or begins with `~/` where nobody knows what home is.
  """
  text = os.fspath(text)
  if _ADDRESS.match(text):
    raise UserError(
      f'{text}: an address, expected a path of this machine; only a training writes to {BUCKET}BUCKET/FOLDER, other '
      'files are copied there (gcloud storage cp --recursive)'
    )
  return expand_home(text)


def index_address(text: str | os.PathLike) -> str:
  """That of an index: a file, or a table of LanceDB, a folder or an object store's address that ends in `.lance`.

  Raises:
    UserError: It is another address.
  """
  text = os.fspath(text).rstrip('/')
  if not _ADDRESS.match(text):
    return str(local_path(text))
  if not re.fullmatch(r'(s3|gs|az)://[^/]+/.*[^/]\.lance', text):
    raise UserError(f'{text}: an address, expected a file, or s3://BUCKET/NAME.lance (gs://, az://)')
  return text


def expand_home(text: str) -> pathlib.Path:
  """`~` and `~/...` are home; `~p.jpg` is the name of a file.

  Raises:
    UserError: Nobody knows where home is.
  """
  if text != '~' and not text.startswith('~/'):
    return pathlib.Path(text)
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise UserError(f'{text}: there is no home folder, expected a whole path') from error


def run_folder(text: str | os.PathLike) -> Folder:
  """That of a run: a path of this machine, or `gs://BUCKET/FOLDER`.

  Raises:
    UserError: It is another address, or a bucket without a folder.
  """
  text = os.fspath(text)
  if not is_bucket(text):
    return local_path(text)
  if not re.fullmatch(r'gs://[^/]+/+[^/].*', text):
    raise UserError(f'{text}: expected {BUCKET}BUCKET/FOLDER')
  return epath.Path(text)


def is_bucket(path: str | os.PathLike) -> bool:
  return os.fspath(path).startswith(BUCKET)


def num_bytes(path: Folder) -> int:
  """Of a file; etils would also look for the name of its owner, which not every user id has."""
  return path.stat().length if is_bucket(path) else os.stat(path).st_size
