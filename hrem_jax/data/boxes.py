"""Where the regions of a split lie in their pictures: `SPLIT_boxes.npy` (docs/data.md)."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float

from hrem_jax.data.features import open_array
from hrem_jax.errors import UserError

_SLACK = 1e-4  # rounding of what was divided by a picture's size


def read_boxes(
  path: pathlib.Path, mask: Bool[np.ndarray, 'i r'], rows: np.ndarray, *, num_images: int
) -> Float[np.ndarray, 'i r 4'] | None:
  """The boxes of some images, as fractions `x0 y0 x1 y1` of their pictures; None where there is no such file.

  Args:
    path: `(images, regions, 4)` floats. Boxes of padding are not looked at.
    mask: Which regions of these images are real.
    rows: The images.
    num_images: Of the split; a file with a multiple of them repeats each image, as the field's features do.

  Raises:
    UserError: The file is damaged, of another shape, or holds something else than fractions; it names the row.
  """
  if not path.is_file():
    return None
  array, repeat = _open(path, num_images, mask.shape[1])
  boxes = _real(array[rows], mask)
  if problems := _problems(path, boxes, rows * repeat):
    raise UserError(problems[0])
  return np.clip(boxes, 0, 1)


def box_problems(path: pathlib.Path, mask: Bool[np.ndarray, 'i r']) -> list[str]:
  """All that `read_boxes` would refuse in a file that is there; `mask` is that of all images of the split."""
  try:
    array, repeat = _open(path, *mask.shape)
  except UserError as error:
    return [str(error)]
  return _problems(path, _real(array, mask), np.arange(len(mask)) * repeat)


def _open(path: pathlib.Path, num_images: int, num_regions: int) -> tuple[np.ndarray, int]:
  """The boxes of all images, and how many rows of the file each has."""
  array = open_array(path, num_dimensions=3)
  repeat = max(len(array) // num_images, 1)
  if array.shape != (repeat * num_images, num_regions, 4) or not np.issubdtype(array.dtype, np.floating):
    raise UserError(f'{path}: {array.dtype} {array.shape}, expected floats {(num_images, num_regions, 4)}')
  return array[::repeat], repeat


def _real(boxes: np.ndarray, mask: Bool[np.ndarray, 'i r']) -> Float[np.ndarray, 'i r 4']:
  """Boxes with 0 at padding."""
  return np.where(mask[..., None], np.asarray(boxes, np.float32), 0)


def _problems(path: pathlib.Path, boxes: Float[np.ndarray, 'i r 4'], rows: np.ndarray) -> list[str]:
  """The rows of the file whose boxes are none."""
  inside = (boxes >= -_SLACK) & (boxes <= 1 + _SLACK)  # NaN is not
  is_fine = inside.all(axis=(1, 2)) & (boxes[..., :2] <= boxes[..., 2:]).all(axis=(1, 2))
  return [
    f'{path}: row {row} (counted from 0) holds other boxes than x0 <= x1, y0 <= y1 as fractions 0..1'
    for row in rows[~is_fine]
  ]
