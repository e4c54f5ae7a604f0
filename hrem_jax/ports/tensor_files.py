"""The tensors of a Hugging Face folder: `model.safetensors`, or the shards that an index names."""

import collections.abc
import copy
import hashlib
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import safetensors
from jaxtyping import Float

from hrem_jax.errors import UserError, one_line, shown
from hrem_jax.files import read_json_object

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
KINDS = 'F64', 'F32', 'F16', 'BF16'  # of numbers that become float32


class FolderTensors(collections.abc.Mapping):
  """Tensors by name, each read when it is asked for, as float32.

  Attributes:
    source: The file that a message should name.
    files: All that hold tensors, by name.
  """

  def __init__(self, source: pathlib.Path, files: list[pathlib.Path]):
    self.source, self.files = str(source), sorted(files)
    self._place_of: dict[str, tuple[safetensors.safe_open, str]] = {}  # the file, and the name there
    for path in self.files:
      opened = _open(path)
      self._place_of.update({name: (opened, name) for name in opened.keys()})  # noqa: SIM118  not a dictionary

  def renamed(self, name_of: Callable[[str], str]) -> 'FolderTensors':
    """The same tensors under other names."""
    other = copy.copy(self)
    other._place_of = {name_of(name): place for name, place in self._place_of.items()}
    return other

  def __getitem__(self, name: str) -> Float[np.ndarray, '...']:
    """Raises UserError where it is of a type that NumPy does not know, or of none with fractions."""
    opened, stored = self._place_of[name]
    kind = opened.get_slice(stored).get_dtype()
    if kind not in KINDS:
      raise UserError(f'{self.source}: {shown(stored)} is of type {shown(kind)}, expected one of {", ".join(KINDS)}')
    try:
      return np.asarray(opened.get_tensor(stored), np.float32)
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
      raise UserError(f'{self.source}: {shown(stored)} cannot be read: {one_line(error)}') from error

  def __contains__(self, name: object) -> bool:
    return name in self._place_of

  def __iter__(self) -> Iterator[str]:
    return iter(self._place_of)

  def __len__(self) -> int:
    return len(self._place_of)

  def sha256(self) -> str:
    """Of all files one after the other: that of `cat model*.safetensors | sha256sum`."""
    digest = hashlib.sha256()
    for path in self.files:
      with path.open('rb') as file:
        while block := file.read(1 << 20):
          digest.update(block)
    return digest.hexdigest()


def read_tensors(folder: pathlib.Path) -> FolderTensors:
  """The tensors of a folder.

  Raises:
    UserError: There are none, a shard is missing, or a file is damaged.
  """
  single, index = folder / SINGLE, folder / INDEX
  if single.is_file():
    return FolderTensors(single, [single])
  if not index.is_file():
    raise UserError(
      f'{single}: no such file; weights are read from safetensors only, this file or those that {INDEX} names (a torch '
      'pickle can hold code)'
    )
  place = read_json_object(index).get('weight_map')
  if not isinstance(place, dict) or not place or not all(isinstance(name, str) for name in place.values()):
    raise UserError(f'{index}: no weight_map, expected an object from tensors to files')
  names = sorted(set(place.values()))
  for name in names:
    if pathlib.PurePath(name).name != name or not (folder / name).is_file():
      raise UserError(f'{index}: names the file {name!r}, which is not in {folder}')
  tensors = FolderTensors(index, [folder / name for name in names])
  missing = sorted(place.keys() - set(tensors))
  if missing:
    raise UserError(f'{index}: {missing[0]!r} is not in {place[missing[0]]} ({len(missing)} tensors are missing)')
  return tensors


def _open(path: pathlib.Path) -> safetensors.safe_open:
  try:
    return safetensors.safe_open(path, framework='np')
  except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
    raise UserError(f'{path}: not a whole safetensors file: {one_line(error)}') from error
