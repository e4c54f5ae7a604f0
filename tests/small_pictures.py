"""Pictures for tests: smooth random ones that do not look alike, and files that are broken in every way."""

import io
import pathlib

import numpy as np
from PIL import Image


def random_picture(seed: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
  """A few soft coloured fields; another seed looks different to everybody."""
  small = np.random.default_rng(seed).integers(0, 256, size=(9, 9, 3), dtype=np.uint8)
  return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def waves() -> np.ndarray:
  """Smooth waves with an edge, `[224, 224, 3]` from 0 to 255: what tests/golden/efficientnet_*.npz was made of."""
  y, x = np.mgrid[:224, :224] / 224
  found = [np.sin(9 * x + 4 * y), np.cos(7 * y * x + 1), np.sin(23 * x) * np.cos(17 * y)]
  values = 127 + 90 * np.stack(found, -1)
  values[60:130, 100:180] = (200, 40, 20)
  return values.astype(np.float32)


def as_bytes(picture: Image.Image, kind: str = 'JPEG', **options) -> bytes:
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return file.getvalue()


def make_folder(folder: pathlib.Path, count: int, *, captions: int = 2, first: int = 0) -> pathlib.Path:
  """`picture_SEED.jpg` with `picture_SEED.txt`, `captions` lines each."""
  folder.mkdir(parents=True, exist_ok=True)
  for seed in range(first, first + count):
    random_picture(seed).save(folder / f'picture_{seed}.jpg', quality=95)
    if captions:
      lines = [f'caption {number} of picture {seed}\n' for number in range(captions)]
      (folder / f'picture_{seed}.txt').write_text(''.join(lines))
  return folder
