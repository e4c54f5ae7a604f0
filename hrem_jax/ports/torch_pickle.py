"""PyTorch checkpoints without PyTorch, and without running what is in them.

Two containers: the zip of torch >= 1.6 (`NAME/data.pkl` and one stored record for each storage) and the older file of
five pickles (magic number, protocol, system, object, keys) with the raw storages behind them.
"""

import io
import mmap
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from hrem_jax.errors import UserError
from hrem_jax.ports.pickle_program import Global, PickleProgram, Vocabulary, described
from hrem_jax.ports.torch_names import CALLS, NAMES, STORAGES, Storage

MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
ZIP_START = b'PK\x03\x04'


def read_checkpoint(path: str | pathlib.Path) -> Any:
  """What `torch.save` wrote.

  Args:
    path: The file, of either format.

  Returns:
    Its object: dictionaries, lists, tuples and plain values; tensors are read-only NumPy arrays (bfloat16 as float32),
    an `argparse.Namespace` is a `Namespace` of ours, NumPy scalars are Python's numbers.

  Raises:
    UserError: The file is missing, damaged, truncated, of another format, or asks for anything but the names above.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file:
      start = file.read(4)
      if not start:
        raise UserError(f'{path}: an empty file, expected a PyTorch checkpoint')
      if start == ZIP_START:
        return _read_zip(path)
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # its reads end where the file ends
        return _read_legacy(mapped, str(path))
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
  except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
    raise UserError(f'{path}: damaged, not a whole PyTorch checkpoint: {str(error)[:200]}') from error


def _read_zip(path: pathlib.Path) -> Any:
  with zipfile.ZipFile(path) as archive:
    records = _StoredRecords(archive, path)
    programs = [name for name in archive.namelist() if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(programs) != 1:
      raise UserError(
        f'{path}: a zip file with {len(programs)} records NAME/data.pkl, expected one: not from torch.save'
      )
    folder = programs[0].removesuffix('data.pkl')
    if f'{folder}byteorder' in archive.namelist() and records.read(f'{folder}byteorder') != b'little':
      raise UserError(f'{path}: written on a machine with the other byte order, which is not supported')

    def load(key: str, dtype: np.dtype, count: int) -> np.ndarray:
      return _numbers(records.read(f'{folder}data/{key}', count * dtype.itemsize), dtype)

    return _program(load, str(path)).run(io.BytesIO(records.read(programs[0])))


class _StoredRecords:
  """Records of a zip file that are not compressed and together not larger than the file: no bombs."""

  def __init__(self, archive: zipfile.ZipFile, path: pathlib.Path):
    self._archive, self._path, self._left = archive, path, path.stat().st_size

  def read(self, name: str, size: int | None = None) -> bytes:
    try:
      info = self._archive.getinfo(name)
    except KeyError:
      raise UserError(f'{self._path}: no record {described(name)}: the file is not whole') from None
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
      raise UserError(f'{self._path}: record {described(name)} is compressed, which torch.save never does')
    if size is not None and info.file_size != size:
      raise UserError(f'{self._path}: record {described(name)} has {info.file_size} bytes, expected {size}')
    self._left -= info.file_size
    if self._left < 0:
      raise UserError(f'{self._path}: its records are said to be larger than the file')
    return self._archive.read(info)


def _read_legacy(file: mmap.mmap, source: str) -> Any:
  """Twice through the object: where a storage lies is known only when all are."""
  plain = _program(_no_storage, source)
  if (magic := plain.run(file)) != MAGIC_NUMBER:
    raise UserError(f'{source}: no PyTorch checkpoint: its magic number is missing, found {described(magic)}')
  version, system = plain.run(file), plain.run(file)
  if version != PROTOCOL_VERSION or not isinstance(system, dict) or system.get('little_endian') is not True:
    raise UserError(f'{source}: a PyTorch checkpoint of another protocol or byte order, which is not supported')
  start, declared, room = file.tell(), {}, len(file)

  def declare(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    nonlocal room
    declared[key] = (dtype, count)
    room -= dtype.itemsize * count
    if room < 0:
      raise ValueError('its storages are said to be larger than the file')
    return np.broadcast_to(np.zeros((), dtype), (count,))  # takes no memory

  _program(declare, source).run(file)
  loaded = _legacy_storages(file, plain.run(file), declared)
  file.seek(start)
  return _program(lambda key, dtype, count: loaded[key], source).run(file)


def _no_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
  raise ValueError('a tensor before the object begins')


def _legacy_storages(file: mmap.mmap, keys: Any, declared: dict) -> dict[str, np.ndarray]:
  """The raw storages behind the pickles, each after its count as eight bytes."""
  if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(declared):
    raise ValueError('its list of storages does not fit its tensors')
  loaded = {}
  for key in keys:
    dtype, count = declared[key]
    (found,) = struct.unpack('<q', file.read(8))
    if found != count:
      raise ValueError(f'a storage has {found} numbers, expected {count}')
    raw = file.read(count * dtype.itemsize)
    if len(raw) < count * dtype.itemsize:
      raise ValueError('it ends in the middle of a storage')
    loaded[key] = _numbers(raw, dtype)
  return loaded


def _numbers(raw: bytes, dtype: np.dtype) -> np.ndarray:
  if dtype == np.bool_:
    return np.frombuffer(raw, np.uint8) != 0  # a byte above 1 is no NumPy boolean
  values = np.frombuffer(raw, dtype.newbyteorder('<') if dtype.kind in 'iuf' else dtype)
  return values.astype(np.float32) if dtype == ml_dtypes.bfloat16 else values


def _program(load: Callable[[str, np.dtype, int], np.ndarray], source: str) -> PickleProgram:
  """A program that knows tensors; `load` gives the numbers of a storage once for each key."""
  storages = {}

  def persistent(identifier: Any) -> Storage:
    match identifier:
      case ('storage', Global(name), str(key), str(), int(count), *view) if (
        name in STORAGES and count >= 0 and view in ([], [None])
      ):
        kind = (name, count)
      case _:
        raise ValueError("a persistent id that is not ('storage', type, key, location, count)")
    if key not in storages:
      storages[key] = kind, Storage(load(key, STORAGES[name], count))
    if storages[key][0] != kind:
      raise ValueError(f'storage {described(key)} is declared twice and differently')
    return storages[key][1]

  return PickleProgram(Vocabulary(NAMES, CALLS, persistent), source=source)
