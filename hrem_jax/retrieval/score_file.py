"""A matrix of scores on disk that is filled part by part and survives a kill at any moment."""

import pathlib
import zlib

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.features import open_array
from hrem_jax.errors import UserError
from hrem_jax.files import reserve, temporary_array

MATRIX_FILE, WRITTEN_FILE = 'matrix.npy', 'written.npy'


class ScoreFile:
  """`FOLDER/matrix.npy`, float32, and beside it a checksum of each part of a row as it was written.

  A part is there if its numbers have their checksum. So neither half a write counts, nor a file that was damaged since.

  Args:
    folder: Made if missing; None: a temporary file, which is gone with this object.
    num_rows: Of the matrix.
    bounds: Where the parts of a row begin, and where the last one ends: the number of columns.

  Attributes:
    matrix: Memory-mapped; parts that are not written are anything.
  """

  def __init__(self, folder: pathlib.Path | None, num_rows: int, bounds: Int[np.ndarray, ' p+1']):
    self._bounds = bounds
    self.matrix = _open(folder and folder / MATRIX_FILE, (num_rows, int(bounds[-1])), np.float32)
    # One more than the CRC-32; 0 is not written, which a new file holds everywhere.
    self._written = _open(folder and folder / WRITTEN_FILE, (num_rows, len(bounds) - 1), np.int64)

  def write(self, rows: slice, part: int, scores: Float[np.ndarray, 'b c']) -> None:
    """Writes one part of some rows."""
    scores = np.ascontiguousarray(scores, np.float32)
    self.matrix[rows, self._columns(part)] = scores
    self._written[rows, part] = [zlib.crc32(row) + 1 for row in scores]

  def is_written(self) -> Bool[np.ndarray, 'i p']:
    """Which parts of which rows are there and whole."""
    matrix, written = np.asarray(self.matrix), np.asarray(self._written)
    is_written = written != 0
    for row, part in np.argwhere(is_written):
      is_written[row, part] = zlib.crc32(matrix[row, self._columns(part)]) + 1 == written[row, part]
    return is_written

  def _columns(self, part: int) -> slice:
    return slice(self._bounds[part], self._bounds[part + 1])


def _open(path: pathlib.Path | None, shape: tuple[int, int], dtype: type) -> np.memmap:
  """The array in a file, or a new one of zeros where there is none of this shape and type."""
  if path is None:
    return temporary_array(shape, dtype)
  try:
    found = open_array(path, num_dimensions=2)
    if found.shape == shape and found.dtype == dtype:
      return np.load(path, mmap_mode='r+', allow_pickle=False)
  except UserError:  # missing, or a damaged header
    pass
  path.unlink(missing_ok=True)
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.lib.format.open_memmap(path, 'w+', np.dtype(dtype), shape)
  with path.open('r+b') as file:
    reserve(file, array.offset + array.nbytes, where=path)
  return array
