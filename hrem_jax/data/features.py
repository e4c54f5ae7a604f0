"""Precomputed region features: a memory-mapped `SPLIT_ims.npy`, read a few rows at a time."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.errors import UserError


def open_array(path: pathlib.Path, *, num_dimensions: int) -> np.ndarray:
  """Memory-maps a `.npy` file; UserError with the file's name where it is missing, cut off or of another kind."""
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    array = np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, EOFError, OSError) as error:
    raise UserError(f'{path}: not a whole .npy file ({path.stat().st_size} bytes): {error}') from error
  if not isinstance(array, np.ndarray) or array.ndim != num_dimensions:
    raise UserError(f'{path}: shape {getattr(array, "shape", None)}, expected {num_dimensions} dimensions')
  return array


class RegionFeatures:
  """The region features of one split, one row per image.

  Args:
    path: `(rows, regions, features)` float16 or float32. Beside it may stand `SPLIT_num_regions.npy`, integers
      `(rows,)`: how many regions of each row are real; without it all are.
    repeat: Every image stands `repeat` times in a row in the file (the field's dev and test files: 5); it is read
      through this stride.

  Raises:
    UserError: A file is missing, damaged or of another shape or type.
  """

  def __init__(self, path: pathlib.Path, *, repeat: int = 1):
    self.path, self.repeat = path, repeat
    self._array = open_array(path, num_dimensions=3)
    if self._array.dtype not in (np.float16, np.float32):
      raise UserError(f'{path}: type {self._array.dtype}, expected float16 or float32')
    self._num_regions = self._read_num_regions()

  def __len__(self) -> int:
    return len(self._array) // self.repeat

  @property
  def max_regions(self) -> int:
    return self._array.shape[1]

  @property
  def region_size(self) -> int:
    return self._array.shape[2]

  @property
  def dtype(self) -> np.dtype:
    return self._array.dtype

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[Float[np.ndarray, 'b r f'], Bool[np.ndarray, 'b r']]:
    """The regions of some images, in the file's type, and which of them are real; padding is zero.

    Raises:
      UserError: A real region holds NaN or infinity.
    """
    rows = np.asarray(index) * self.repeat
    regions = np.array(self._array[rows])
    mask = np.arange(self.max_regions) < self._num_regions[rows][:, None]
    regions[~mask] = 0  # junk in padding would be multiplied by a mask's zero: NaN stays NaN
    finite = np.isfinite(regions).all(axis=(1, 2))
    if not finite.all():
      raise UserError(f'{self.path}: row {rows[~finite][0]} (counted from 0) holds NaN or infinite features')
    return regions, mask

  def _read_num_regions(self) -> np.ndarray:
    path = self.path.with_name(self.path.name.replace('_ims.npy', '_num_regions.npy'))
    rows, max_regions = self._array.shape[:2]
    if not path.exists():
      return np.full(rows, max_regions)
    counts = np.array(open_array(path, num_dimensions=1))
    if len(counts) != rows or not np.issubdtype(counts.dtype, np.integer):
      raise UserError(f'{path}: {len(counts)} numbers of type {counts.dtype}, expected {rows} integers')
    if counts.min(initial=1) < 1 or counts.max(initial=1) > max_regions:
      wrong = int(np.flatnonzero((counts < 1) | (counts > max_regions))[0])
      raise UserError(f'{path}: row {wrong} has {counts[wrong]} regions, expected 1 to {max_regions}')
    return counts


def repeats_each_image(array: np.ndarray, times: int, *, probes: int = 5) -> bool:
  """Whether rows stand in groups of `times` equal ones, judged by a few groups spread over the file."""
  groups = np.linspace(0, len(array) // times - 1, num=min(probes, len(array) // times)).astype(int)
  return all((array[g * times : (g + 1) * times] == array[g * times]).all() for g in groups)
