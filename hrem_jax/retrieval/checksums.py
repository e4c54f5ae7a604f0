"""Whether a run still is what was written: a changed bit is often another number that reads just as well."""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np
import tensorstore

from hrem_jax.errors import UserError, one_line
from hrem_jax.files import read_json_object, to_json, write_text

CHECKSUMS = 'checksums.json'


def write_checksums(folder: pathlib.Path, names: Sequence[str] | None = None) -> None:
  """Writes `checksums.json`: SHA-256 of the files of these names, or of every file in the folder and below."""
  write_text(folder / CHECKSUMS, to_json(_checksums(folder, names)))


def verify(folder: pathlib.Path) -> None:
  """Raises UserError naming the first file that differs; without `checksums.json`, the first array not whole."""
  if (folder / CHECKSUMS).is_file():
    _compare(folder, read_checksums(folder))
  else:
    _read_through(folder / 'state')


def verify_file(folder: pathlib.Path, name: str, *, mended: str = '') -> None:
  """Raises UserError where a file is not what `checksums.json` says: changed, gone, or not known to it.

  Args:
    folder: Has `checksums.json`; without it nothing is known and all is well.
    name: Of the file, relative to the folder.
    mended: What the message says besides: how somebody who meant the change goes on.
  """
  if not (folder / CHECKSUMS).is_file():
    return
  expected = read_checksums(folder)
  if name in expected:
    _compare(folder, {name: expected[name]}, mended)
  elif (folder / name).exists():
    raise UserError(f'{folder}: damaged: {name} was not there when it was written ({CHECKSUMS} does not have it)')


def read_checksums(folder: pathlib.Path) -> dict[str, str]:
  """Names of files and their SHA-256."""
  content = read_json_object(folder / CHECKSUMS)
  if not content or not all(isinstance(checksum, str) for checksum in content.values()):
    raise UserError(f'{folder / CHECKSUMS}: expected an object with names of files and their SHA-256')
  return content


def _compare(folder: pathlib.Path, expected: dict[str, str], mended: str = '') -> None:
  missing = sorted(name for name in expected if not (folder / name).is_file())
  if missing:
    raise UserError(f'{folder}: damaged: {missing[0]} is missing ({len(missing)} of {len(expected)} files are)')
  found = _checksums(folder, expected)
  changed = sorted(name for name in expected if found[name] != expected[name])
  if changed:
    raise UserError(f'{folder}: damaged: {changed[0]} is not what was written ({CHECKSUMS} has its SHA-256){mended}')


def _read_through(state: pathlib.Path) -> None:
  """Reads all arrays, one after the other: where Orbax, which reads many at once, finds one that is not whole, the
  threads that read the others print a traceback each, and nobody can stop them."""
  if not (state / 'manifest.ocdbt').is_file():
    return  # Orbax says what is missing
  base = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{state.absolute()}/'}}
  try:
    for key in tensorstore.KvStore.open(base).result().list().result():
      name, _, file = key.decode().rpartition('/')
      if file == '.zarray':
        tensorstore.open({'driver': 'zarr', 'kvstore': {**base, 'path': f'{name}/'}}).result().read().result()
  except (OSError, ValueError) as error:
    raise UserError(f'{state}: not a whole checkpoint: {one_line(error)[:400]}') from error


def _checksums(folder: pathlib.Path, names: Iterable[str] | None = None) -> dict[str, str]:
  if names is None:
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob('*')) if path.is_file())
    names = [name for name in found if not name.endswith(CHECKSUMS)]  # nor that of a start killed while writing
  checksums = {}
  for name in names:
    with (folder / name).open('rb') as file:
      checksums[name] = hashlib.file_digest(file, 'sha256').hexdigest()
  return checksums


def digest(arrays) -> str:
  """SHA-256 of all names and numbers of a tree of arrays."""
  content = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(arrays)):
    array = np.ascontiguousarray(leaf)
    content.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n'.encode())
    content.update(array.reshape(-1).view(np.uint8).data)
  return content.hexdigest()
