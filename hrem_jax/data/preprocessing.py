"""What a picture goes through before an encoder looks at it."""

import dataclasses

import numpy as np
from jaxtyping import Float
from PIL import Image

_LONGEST = 20  # times the shorter side; more of a picture is not resized where the middle is cut out


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
    return _cells((0, 0, 1, 1), grid)


@dataclasses.dataclass(frozen=True)
class TowerPreprocessing:
  """What the published image processors of ViT, CLIP, SigLIP and DINOv2 do (those of them that use Pillow).

  Attributes:
    resize: Height and width that a picture is squashed to; or one number, for its shorter side.
    crop: Height and width that are cut out of the middle; None: nothing is cut off.
    patch_size: Pixels of a patch's side: what is left over at the right and at the bottom belongs to no cell.
    resample: Name of Pillow's filter, in capitals.
    scale: The 8-bit values are multiplied with it first.
    mean, deviation: Of the scaled values of each colour, which become `(value - mean) / deviation`.
  """

  resize: int | tuple[int, int]
  crop: tuple[int, int] | None
  patch_size: int
  resample: str
  scale: float
  mean: tuple[float, float, float]
  deviation: tuple[float, float, float]

  @property
  def size(self) -> tuple[int, int]:
    """Height and width of the pixels."""
    return self.crop or (self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize))

  def __call__(self, picture: Image.Image) -> Float[np.ndarray, 'h w 3']:
    """The pixels of an upright picture, float32."""
    picture = self._middle(picture).convert('RGB')
    small = picture.resize(self._resized(picture.size), Image.Resampling[self.resample])
    left, top = self._corner(small.size)
    height, width = self.size
    values = np.asarray(small.crop((left, top, left + width, top + height)), np.float64)
    scaled = (values * self.scale).astype(np.float32)  # the product in float64, as published
    return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.deviation, np.float32)

  def grid_boxes(self, size: tuple[int, int], grid: tuple[int, int]) -> Float[np.ndarray, 'cells 4']:
    """`x0 y0 x1 y1` of each cell, row by row, as fractions of an upright picture of `size` (width and height)."""
    resized = self._resized(size)
    left, top = self._corner(resized)
    right, bottom = left + grid[1] * self.patch_size, top + grid[0] * self.patch_size
    return _cells((left / resized[0], top / resized[1], right / resized[0], bottom / resized[1]), grid)

  def _middle(self, picture: Image.Image) -> Image.Image:
    """What a crop can be of: a picture much longer than wide, its shorter side resized, would be of endless length."""
    (width, height), most = picture.size, _LONGEST * min(picture.size)
    if isinstance(self.resize, tuple) or max(width, height) <= most:
      return picture
    left, top = max(width - most, 0) // 2, max(height - most, 0) // 2
    return picture.crop((left, top, left + min(width, most), top + min(height, most)))

  def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height before the crop."""
    if isinstance(self.resize, tuple):
      return self.resize[1], self.resize[0]
    longer = int(self.resize * max(size) / min(size))
    return (self.resize, longer) if size[0] <= size[1] else (longer, self.resize)

  def _corner(self, resized: tuple[int, int]) -> tuple[int, int]:
    """Left and top of the crop."""
    height, width = self.size
    return (resized[0] - width) // 2, (resized[1] - height) // 2


def _cells(box: tuple[float, float, float, float], grid: tuple[int, int]) -> Float[np.ndarray, 'cells 4']:
  """The boxes of equal cells, row by row, that fill `box`."""
  rows, columns = grid
  row, column = np.divmod(np.arange(rows * columns), columns)
  corner, extent = np.array(box[:2]), np.array([box[2] - box[0], box[3] - box[1]])
  first = np.stack([column, row], axis=1)
  return np.concatenate([corner + cell * extent / [columns, rows] for cell in (first, first + 1)], axis=1)
