"""The backgrounds of the demo pictures: a strip above the horizon, a ground, and a little texture."""

from functools import cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from hrem_jax.data.demo.catalogue import BACKGROUNDS
from hrem_jax.data.demo.layout import PICTURE_SIZE

_SCALE = 2  # drawn twice as large, then shrunk: Pillow does not smooth edges


def _shade(colour: tuple[int, ...], amount: float) -> tuple[int, ...]:
  """The colour moved towards white (amount > 0) or black (amount < 0), amount in -1..1."""
  target = 255 if amount > 0 else 0
  return tuple(round(channel + (target - channel) * abs(amount)) for channel in colour)


def _spots(count: int, top: float, rng: np.random.Generator) -> list[tuple[int, int]]:
  """Points strewn over the picture below `top`, in pixels of the enlarged drawing."""
  edge = PICTURE_SIZE * _SCALE
  return [(int(rng.integers(edge)), int(rng.integers(int(top), edge))) for _ in range(count)]


def _draw_texture(canvas: ImageDraw.ImageDraw, texture: str, horizon: float, ground, rng: np.random.Generator) -> None:
  """Strews the ground; faint enough not to be taken for an object."""
  edge = PICTURE_SIZE * _SCALE
  dark, light = _shade(ground, -0.14), _shade(ground, 0.45)
  match texture:
    case 'blades':
      for x, y in _spots(42, horizon + 12, rng):
        canvas.line([(x - 6, y - 10), (x, y), (x + 5, y - 12)], dark, width=3)
    case 'dots':
      for x, y in _spots(60, horizon + 6, rng):
        canvas.ellipse([x, y, x + 5, y + 4], dark)
    case 'waves':
      for x, y in _spots(26, horizon + 16, rng):
        canvas.arc([x, y, x + 24, y + 14], 200, 340, light, width=3)
        canvas.arc([x + 22, y, x + 46, y + 14], 200, 340, light, width=3)
    case 'stars':
      for x, y in _spots(46, 0, rng):
        size = int(rng.integers(2, 6))
        canvas.ellipse([x, y, x + size, y + size], (250, 240, 190))
    case 'planks':
      for y in np.linspace(horizon, edge, 7):
        canvas.line([(0, y), (edge, y)], dark, width=3)
        x = int(rng.integers(edge))
        canvas.line([(x, y), (x, y + (edge - horizon) / 6)], dark, width=3)
    case 'lanes':
      for y in np.linspace(horizon, edge, 4)[1:-1]:
        for x in range(-20 + int(rng.integers(40)), edge, 100):
          canvas.rectangle([x, y - 3, x + 50, y + 3], light)


@cache
def draw_background(name: str, variant: int) -> Image.Image:
  """A background as an RGB picture, shared: copy it before drawing on it.

  Args:
    name: a key of BACKGROUNDS.
    variant: a small number that decides the horizon, the brightness and where the texture falls.
  """
  # The bytes of the name and not its hash(), which differs from run to run.
  rng = np.random.default_rng([variant, *name.encode()])
  background = BACKGROUNDS[name]
  brightness = rng.uniform(-0.04, 0.06)
  top, bottom = (_shade(ImageColor.getrgb(f'#{tone}'), brightness) for tone in (background.top, background.bottom))
  edge = PICTURE_SIZE * _SCALE
  picture = Image.new('RGB', (edge, edge), bottom)
  canvas = ImageDraw.Draw(picture)
  horizon = rng.uniform(0.13, 0.2) * edge
  if background.texture in ('plain', 'stars'):
    # A sky has no horizon: it fades from one tone to the other.
    for y in range(edge):
      tone = tuple(round(a + (b - a) * y / edge) for a, b in zip(top, bottom, strict=True))
      canvas.line([(0, y), (edge, y)], tone)
  else:
    canvas.rectangle([0, 0, edge, horizon], top)
    canvas.line([(0, horizon), (edge, horizon)], _shade(bottom, -0.2), width=3)
  _draw_texture(canvas, background.texture, horizon, bottom, rng)
  return picture.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BOX)
