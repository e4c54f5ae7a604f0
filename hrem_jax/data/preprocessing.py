"""What a picture goes through before an encoder looks at it."""

import dataclasses

import numpy as np
from jaxtyping import Float
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """A picture to the pixels that an encoder was trained on; nothing of it is cut off.

  Attributes:
    size: Pixels of a side; the picture is squashed to a square, so that what stands at its edges is seen, too.
    mean, deviation: Of the 8-bit values, which become `(value - mean) / deviation`.
  """

  size: int
  mean: float
  deviation: float

  def __call__(self, picture: Image.Image) -> Float[np.ndarray, 'h w 3']:
    """The pixels of an upright picture, float32."""
    small = picture.convert('RGB').resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return (np.asarray(small, np.float32) - self.mean) / self.deviation

  def grid_boxes(self, size: tuple[int, int], grid: tuple[int, int]) -> Float[np.ndarray, 'cells 4']:
    """`x0 y0 x1 y1` of each cell, row by row, as fractions of a picture of `size` (which does not matter here)."""
    rows, columns = grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=1)
