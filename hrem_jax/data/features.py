"""Precomputed region features: `SPLIT_ims.npy`, read a few rows at a time."""

import functools
import pathlib

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.errors import UserError, one_line


def open_array(path: pathlib.Path, *, num_dimensions: int) -> np.ndarray:
  """Memory-maps a `.npy` file; UserError with the file's name where it is missing, cut off or of another kind."""
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    array = np.load(path, mmap_mode='r', allow_pickle=False)
  except Exception as error:  # a damaged header is parsed as Python: there is hardly a class that is not raised
    raise UserError(f'{path}: not a whole .npy file ({path.stat().st_size} bytes): {one_line(error)}') from error
  if not isinstance(array, np.ndarray) or array.ndim != num_dimensions:
    raise UserError(f'{path}: shape {getattr(array, "shape", None)}, expected {num_dimensions} dimensions')
  return array


def open_features(path: pathlib.Path) -> np.ndarray:
  """Memory-maps `SPLIT_ims.npy`; UserError also where its type or order is not what can be read a row at a time."""
  array = open_array(path, num_dimensions=3)
  if not array.size:
    raise UserError(f'{path}: shape {array.shape}, expected at least one image, region and feature')
  if array.dtype not in (np.float16, np.float32):
    raise UserError(f'{path}: type {array.dtype}, expected float16 or float32')
  if not array.flags.c_contiguous:
    raise UserError(f'{path}: Fortran order, expected C order: a row would lie scattered over the whole file')
  return array


def open_embeddings(path: pathlib.Path, num_rows: int) -> np.ndarray:
  """Memory-maps `SPLIT_embeddings.npy`; UserError where it has not one float32 row for each row of the features."""
  embeddings = open_array(path, num_dimensions=2)
  if len(embeddings) != num_rows or embeddings.dtype != np.float32:
    raise UserError(
      f'{path}: {len(embeddings)} rows of {embeddings.dtype}, expected {num_rows} of float32, as many as '
      f'{path.name.replace("_embeddings", "_ims")} has'
    )
  return embeddings


def not_finite_embedding(path: pathlib.Path, row: int) -> str:
  """The problem with such a row."""
  return f'{path}: row {row} (counted from 0) holds NaN or infinite numbers'


def num_regions_path(features_path: pathlib.Path) -> pathlib.Path:
  """The optional file beside `SPLIT_ims.npy`."""
  return features_path.with_name(features_path.name.replace('_ims.npy', '_num_regions.npy'))


def embeddings_path(features_path: pathlib.Path) -> pathlib.Path:
  """The optional file beside `SPLIT_ims.npy`: the picture encoder's own embeddings."""
  return features_path.with_name(features_path.name.replace('_ims.npy', '_embeddings.npy'))


def read_num_regions(path: pathlib.Path, num_rows: int) -> Int[np.ndarray, ' n']:
  """The numbers of regions of so many rows, whatever they are; UserError where the file is of another kind."""
  counts = np.array(open_array(path, num_dimensions=1))
  if len(counts) != num_rows or not np.issubdtype(counts.dtype, np.integer):
    raise UserError(f'{path}: {len(counts)} numbers of type {counts.dtype}, expected {num_rows} integers')
  return counts


def num_regions_problems(path: pathlib.Path, counts: Int[np.ndarray, ' n'], max_regions: int) -> list[str]:
  """What is wrong with the numbers of a file, each with its row."""
  wrong = np.flatnonzero((counts < 1) | (counts > max_regions))
  return [f'{path}: row {row} has {counts[row]} regions, expected 1 to {max_regions}' for row in wrong]


class RegionFeatures:
  """The region features of one split, one row per image.

  Args:
    path: `(rows, regions, features)` float16 or float32, C order. Beside it may stand `SPLIT_num_regions.npy`, integers
      `(rows,)`: how many regions of each row are real; without it all are.
    repeat: Every image stands `repeat` times in a row in the file (the field's dev and test files: 5); it is read
      through this stride.

  `SPLIT_embeddings.npy` may stand there, too: the embeddings that the encoder of the pictures itself makes of them.

  Raises:
    UserError: A file is missing, damaged or of another shape or type.
  """

  def __init__(self, path: pathlib.Path, *, repeat: int = 1):
    self.path, self.repeat = path, repeat
    self._array = open_features(path)
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
      UserError: A real region holds NaN or infinity, or the file has become shorter.
    """
    rows = np.asarray(index) * self.repeat
    regions = self._read(rows)
    mask = np.arange(self.max_regions) < self._num_regions[rows][:, None]
    regions[~mask] = 0  # junk in padding would be multiplied by a mask's zero: NaN stays NaN
    finite = np.isfinite(regions).all(axis=(1, 2))
    if not finite.all():
      raise UserError(f'{self.path}: row {rows[~finite][0]} (counted from 0) holds NaN or infinite features')
    return regions, mask

  def extra(self, name: str, index: Int[np.ndarray, ' b']) -> Float[np.ndarray, 'b ...']:
    """An optional input of some images: `embeddings`, those of the encoder that made the features.

    Raises:
      UserError: There is none, or a number of it is not finite.
    """
    return {'embeddings': self._embeddings_of}[name](index)

  def _embeddings_of(self, index: Int[np.ndarray, ' b']) -> Float[np.ndarray, 'b e']:
    rows = np.asarray(index) * self.repeat
    embeddings = self._embeddings[rows]
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
      raise UserError(not_finite_embedding(embeddings_path(self.path), rows[~finite][0]))
    return embeddings

  def check_embeddings(self, size: int, wanted: str) -> None:
    """Raises UserError, `wanted` saying who expects embeddings of that `size`, where there are none or other ones."""
    if self._embeddings.shape[1] != size:
      raise UserError(f'{embeddings_path(self.path)}: embeddings of size {self._embeddings.shape[1]}, {wanted}{size}')

  @functools.cached_property
  def _embeddings(self) -> Float[np.ndarray, 'n e']:
    path = embeddings_path(self.path)
    if not path.is_file():
      raise UserError(
        f'{path}: no such file; `python -m hrem_jax extract` writes it with an encoder whose embeddings can be '
        'compared with those of texts (a folder of CLIP or SigLIP)'
      )
    return open_embeddings(path, len(self._array))

  def _read(self, rows: Int[np.ndarray, ' b']) -> Float[np.ndarray, 'b r f']:
    """Rows of the file, not through the memory map: its pages would stay resident, in an epoch all 33 GB of COCO."""
    regions = np.empty((len(rows), *self._array.shape[1:]), self.dtype)
    with self.path.open('rb', buffering=0) as file:
      for place, row in zip(regions, rows, strict=True):
        file.seek(self._array.offset + range(len(self._array))[row] * place.nbytes)
        if file.readinto(place) != place.nbytes:
          raise UserError(f'{self.path}: ends within row {row} (counted from 0): was it changed meanwhile?')
    return regions

  def _read_num_regions(self) -> np.ndarray:
    path, (rows, max_regions) = num_regions_path(self.path), self._array.shape[:2]
    if not path.exists():
      return np.full(rows, max_regions)
    counts = read_num_regions(path, rows)
    if problems := num_regions_problems(path, counts, max_regions):
      raise UserError(problems[0])
    return counts


def repeats_each_image(array: np.ndarray, times: int, *, probes: int = 5) -> bool:
  """Whether rows stand in groups of `times` equal ones, judged by a few groups spread over the file."""
  groups = np.linspace(0, len(array) // times - 1, num=min(probes, len(array) // times)).astype(int)
  return all((array[g * times : (g + 1) * times] == array[g * times]).all() for g in groups)
