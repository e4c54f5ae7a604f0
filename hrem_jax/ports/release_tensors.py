"""The tensors of a checkpoint of the authors, converted only where a table names them."""

import collections.abc
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hrem_jax.errors import UserError

SHARED = 2  # so often may tensors show the same bytes of a file: an embedding that is also an output layer


class Tensors(collections.abc.Mapping):
  """Tensors by name, windows of the file; float32 where they are asked for, so that nothing is converted in vain."""

  def __init__(self, arrays: Mapping[str, np.ndarray]):
    self._arrays = arrays

  def __getitem__(self, name: str) -> np.ndarray:
    return np.asarray(self._arrays[name], np.float32)

  def __contains__(self, name: object) -> bool:
    return name in self._arrays

  def __iter__(self) -> Iterator[str]:
    return iter(self._arrays)

  def __len__(self) -> int:
    return len(self._arrays)

  def arrays(self) -> list[np.ndarray]:
    """As they are in the file."""
    return list(self._arrays.values())

  def shape(self, name: str) -> tuple[int, ...]:
    return self._arrays[name].shape


def named_tensors(state_dict: dict, source: str) -> Tensors:
  """By name, without the `module` that DataParallel puts into names."""
  tensors = {}
  for name, array in state_dict.items():
    if not isinstance(name, str) or not isinstance(array, np.ndarray):
      raise UserError(f'{source}: {str(name)[:80]!r} in a state dictionary is no tensor')
    plain = '.'.join(part for part in name.split('.') if part != 'module')
    if plain in tensors:
      raise UserError(f'{source}: tensor {plain[:80]!r} occurs twice')
    tensors[plain] = array
  return Tensors(tensors)


def check_bytes(arrays: Sequence[np.ndarray], path: pathlib.Path) -> None:
  """Many windows of one storage, each converted, would make gigabytes of a small file."""
  found, held = sum(array.nbytes for array in arrays), path.stat().st_size
  if found > SHARED * held:
    raise UserError(
      f'{path}: its tensors have {found:,} bytes, expected at most {SHARED} times the {held:,} of the file'
    )
