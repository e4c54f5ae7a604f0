"""PyTorch's two file formats, written by hand: what the reader's tests read."""

import collections
import io
import pathlib
import pickle
import struct
import typing
import zipfile

import numpy as np

KINDS = {'float32': 'FloatStorage', 'float64': 'DoubleStorage', 'int64': 'LongStorage', 'bool': 'BoolStorage'}


class Raw:
  """A tensor as a window of a storage, spelt as a checkpoint spells it."""

  def __init__(
    self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *, key: str, kind: str | None = None
  ):
    self.storage, self.window, self.key = storage, (offset, size, stride), key
    self.kind = kind or KINDS[str(storage.dtype)]


class OldRaw(Raw):
  """The same, as PyTorch wrote it before 0.4."""


class Named:
  """A global of another program; `pickle` writes it as a function."""

  def __init__(self, module: str, name: str):
    self.module, self.name = module, name


class Writer(pickle._Pickler):
  """Python's pickler with our stand-ins written as the globals that PyTorch would name."""

  dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

  def save_named(self, named):
    self.write(pickle.GLOBAL + f'{named.module}\n{named.name}\n'.encode())

  def save_raw(self, raw):
    is_old = isinstance(raw, OldRaw)
    self.save_named(Named('torch._utils', '_rebuild_tensor' if is_old else '_rebuild_tensor_v2'))
    self.write(pickle.MARK)
    self.write(pickle.MARK)
    self.save('storage')
    self.save_named(Named('torch', raw.kind))
    for item in (raw.key, 'cuda:0', raw.storage.size):
      self.save(item)
    self.write(pickle.TUPLE + pickle.BINPERSID)
    for item in raw.window if is_old else (*raw.window, False, collections.OrderedDict()):
      self.save(item)
    self.write(pickle.TUPLE + pickle.REDUCE)

  dispatch[Raw] = dispatch[OldRaw] = save_raw
  dispatch[Named] = save_named


def tensor(array: np.ndarray, key: str) -> Raw:
  flat = array.ravel()
  steps = tuple(stride // array.itemsize for stride in flat.reshape(array.shape).strides)
  return Raw(flat, 0, array.shape, steps, key=key)


def program(content) -> bytes:
  stream = io.BytesIO()
  Writer(stream, protocol=2).dump(content)
  return stream.getvalue()


def zip_file(pickled: bytes, storages: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', compression) as archive:
    archive.writestr('model_best/data.pkl', pickled)
    for key, raw in storages.items():
      archive.writestr(f'model_best/data/{key}', raw)
  return stream.getvalue()


def legacy_file(pickled: bytes, storages: dict[str, np.ndarray]) -> bytes:
  header = [0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}]
  tail = [struct.pack('<q', array.size) + array.tobytes() for array in storages.values()]
  return b''.join([*map(program, header), pickled, program(list(storages)), *tail])


def save_checkpoint(path: pathlib.Path, image: dict, text: dict, **others) -> pathlib.Path:
  """Writes what programs of the field save, two state dicts and `others`, in the zip format; returns the path."""
  storages = {}

  def tensors(state: dict) -> dict:
    raws = {}
    for name, array in state.items():
      raws[name] = tensor(np.asarray(array, np.float32), str(len(storages)))
      storages[str(len(storages))] = np.asarray(array, np.float32).tobytes()
    return raws

  model = [tensors(image), tensors(text)]
  others = {name: tensors(value) if name == 'criterion' else value for name, value in others.items()}
  storages['o'] = np.ones(3).tobytes()  # for others that hold a tensor
  path.write_bytes(zip_file(program({'model': model, **others}), storages))
  return path
