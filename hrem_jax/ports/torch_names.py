"""The names that a PyTorch checkpoint may speak of, and what stands for each of them here: nothing is imported."""

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from hrem_jax.ports.pickle_program import Buildable, described

DTYPES = {
  'Float': np.float32,
  'Double': np.float64,
  'Half': np.float16,
  'BFloat16': ml_dtypes.bfloat16,
  'Long': np.int64,
  'Int': np.int32,
  'Short': np.int16,
  'Char': np.int8,
  'Byte': np.uint8,
  'Bool': np.bool_,
}
STORAGES = {f'torch.{name}Storage': np.dtype(dtype) for name, dtype in DTYPES.items()}
INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint8', 'bool')
TORCH_DTYPES = frozenset(f'torch.{name}' for name in ('float16', 'float32', 'float64', 'bfloat16', *INTEGERS))
NUMPY_SCALARS = frozenset(['b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8'])


class StateDict(dict, Buildable):
  """In place of `collections.OrderedDict`; PyTorch hangs `_metadata` on it, which nobody needs."""

  def build(self, state: Any) -> None:
    del state


class Namespace(Buildable):
  """In place of `argparse.Namespace`: its values are in a dictionary, not attributes."""

  def __init__(self):
    self.values: dict[str, Any] = {}

  def build(self, state: Any) -> None:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
      raise ValueError('a Namespace whose state is not a dictionary of names')
    self.values.update(state)


class NumpyScalarType(Buildable):
  """In place of `numpy.dtype`: numbers only, no objects, no fields."""

  def __init__(self, code: str):
    self.dtype = np.dtype(code)

  def build(self, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 3 or state[1] not in ('<', '>', '|') or state[2] is not None:
      raise ValueError('a numpy.dtype that is not a plain number')
    self.dtype = self.dtype.newbyteorder(state[1])


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
  """One flat run of numbers that tensors are windows of."""

  values: Shaped[np.ndarray, ' n']


def state_dict(arguments: tuple) -> StateDict:
  """`OrderedDict()`, or from a list of pairs as Python 2 wrote it."""
  match arguments:
    case ():
      return StateDict()
    case (list(pairs),) if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
      if all(isinstance(key, str | int) for key, _ in pairs):
        return StateDict((key, value) for key, value in pairs)
  raise ValueError('an OrderedDict of something else than pairs with text or integers first')


def namespace(arguments: tuple) -> Namespace:
  if arguments:
    raise ValueError('an argparse.Namespace with arguments')
  return Namespace()


def size(arguments: tuple) -> tuple[int, ...]:
  match arguments:
    case (tuple(extents),) if all(isinstance(extent, int) for extent in extents):
      return extents
  raise ValueError('a torch.Size that is not a tuple of integers')


def tensor(arguments: tuple) -> Shaped[np.ndarray, '...']:
  """A read-only window of a storage; nothing is copied, so a small file cannot become a large array."""
  match arguments:
    case (Storage(values), int(offset), tuple(extents), tuple(strides), *_) if len(extents) == len(strides) <= 64:
      pass
    case _:
      raise ValueError('a tensor that is not (storage, offset, size, stride, ...)')
  if not all(isinstance(number, int) and number >= 0 for number in (offset, *extents, *strides)):
    raise ValueError('a tensor with a negative or broken offset, size or stride')
  if any(extent > len(values) for extent in extents) or math.prod(extents) > len(values):
    raise ValueError(f'a tensor with more numbers than its storage of {len(values)}')
  strides = tuple(stride if extent > 1 else 0 for extent, stride in zip(extents, strides, strict=True))
  last = offset + sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True) if extent)
  if offset > len(values) or (math.prod(extents) and last >= len(values)):
    raise ValueError(f'a tensor that reaches to {last} in a storage of {len(values)} numbers')
  if not math.prod(extents):
    return np.empty(extents, values.dtype)
  steps = tuple(stride * values.strides[0] for stride in strides)
  return np.lib.stride_tricks.as_strided(values[offset:], extents, steps, writeable=False)


def parameter(arguments: tuple) -> Shaped[np.ndarray, '...']:
  match arguments:
    case (np.ndarray() as data, *_):
      return data
  raise ValueError('a parameter without a tensor')


def numpy_type(arguments: tuple) -> NumpyScalarType:
  match arguments:
    case (str(code), *_) if code in NUMPY_SCALARS:
      return NumpyScalarType(code)
  code = arguments[0] if arguments else ''
  raise ValueError(f'the numpy.dtype {described(code)}, accepted are numbers')


def numpy_scalar(arguments: tuple) -> bool | int | float:
  match arguments:
    case (NumpyScalarType() as kind, bytes(raw)) if len(raw) == kind.dtype.itemsize:
      return np.frombuffer(raw, kind.dtype)[0].item()
  raise ValueError('a NumPy scalar that is not (type, bytes)')


def encoded(arguments: tuple) -> bytes:
  """How protocol 2 writes bytes."""
  match arguments:
    case (str(text), 'latin1'):
      return text.encode('latin-1')
  raise ValueError('_codecs.encode of something else than bytes')


CALLS = {
  '_codecs.encode': encoded,
  'argparse.Namespace': namespace,
  'collections.OrderedDict': state_dict,
  'numpy._core.multiarray.scalar': numpy_scalar,
  'numpy.core.multiarray.scalar': numpy_scalar,
  'numpy.dtype': numpy_type,
  'torch.Size': size,
  'torch._utils._rebuild_parameter': parameter,
  'torch._utils._rebuild_tensor_v2': tensor,
}
NAMES = frozenset(CALLS) | frozenset(STORAGES) | TORCH_DTYPES
