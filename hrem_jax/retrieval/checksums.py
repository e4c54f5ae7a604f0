"""Whether a checkpoint still is what was written: Orbax reads many a changed bit as another number."""

import hashlib
import json
import pathlib

import tensorstore

from hrem_jax.errors import UserError, one_line
from hrem_jax.files import write_text

CHECKSUMS = 'checksums.json'


def write_checksums(folder: pathlib.Path) -> None:
  """Writes `checksums.json`, SHA-256 of every file in the folder and below."""
  write_text(folder / CHECKSUMS, json.dumps(_checksums(folder), indent=2) + '\n')


def verify(folder: pathlib.Path) -> None:
  """Raises UserError naming the first file that differs; without `checksums.json`, the first array not whole."""
  path = folder / CHECKSUMS
  if not path.is_file():
    _read_through(folder / 'state')
    return
  try:
    expected = dict(json.loads(path.read_text('utf-8')))
  except (ValueError, TypeError) as error:
    raise UserError(f'{path}: expected JSON, names of files and their SHA-256: {one_line(error)}') from error
  missing = sorted(name for name in expected if not (folder / name).is_file())
  if missing:
    raise UserError(f'{folder}: damaged: {missing[0]} is missing ({len(missing)} of {len(expected)} files are)')
  found = _checksums(folder)
  changed = sorted(name for name in expected if found[name] != expected[name])
  if changed:
    raise UserError(f'{folder}: damaged: {changed[0]} is not what was written ({CHECKSUMS} has its SHA-256)')


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


def _checksums(folder: pathlib.Path) -> dict[str, str]:
  checksums = {}
  for path in sorted(folder.rglob('*')):
    if path.is_file() and not path.name.endswith(CHECKSUMS):  # nor that of a start that was killed while writing
      with path.open('rb') as file:
        checksums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, 'sha256').hexdigest()
  return checksums
