"""The one door for pictures: files to RGB, whatever is in them; what cannot be read says why."""

import hashlib
import io
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from hrem_jax.errors import one_line
from hrem_jax.extraction.png_texts import without_long_texts
from hrem_jax.extraction.records import PackedPicture

# Those that hold photographs. Not all that Pillow knows: it would start Ghostscript for a file that says it is EPS.
Image.init()  # else it looks for plugins when asked to open, and not for all
FORMATS = tuple(
  name
  for name in ('JPEG', 'MPO', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM', 'JPEG2000', 'AVIF')
  if name in Image.OPEN  # AVIF is not in every build
)
MAX_PIXELS = 178_956_970  # where Pillow speaks of a bomb: half a gigabyte of RGB
MAX_RATIO = 100  # of the longer side to the shorter: a line resized to a square's shorter side would be a bomb, too


class UnreadablePicture(Exception):
  """A picture that is left out; its message is the reason, in one line."""


class TooManyPixels(UnreadablePicture):
  """A picture that would take too much memory."""


@contextmanager
def open_picture(path: pathlib.Path | PackedPicture) -> Iterator[tuple[Image.Image, str]]:
  """The picture as RGB, turned as its EXIF says, and the SHA-256 of its file.

  Raises:
    UnreadablePicture: There is no such file, it is damaged or cut off, of another kind, or of an absurd size.
  """
  try:
    with path.open('rb') as file:
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
      file.seek(0)
      picture = decode(file)
  except FileNotFoundError as error:
    raise UnreadablePicture('no such file') from error
  except OSError as error:
    raise UnreadablePicture('a folder' if path.is_dir() else _reason(error)) from error
  yield picture, digest


def decode(file: BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
  """The picture in an open file as RGB, turned as its EXIF says.

  Args:
    file: Read from where it stands.
    max_pixels: Of a picture, at most; told by its header, before anything is unpacked.

  Raises:
    UnreadablePicture: It is damaged or cut off, of another kind, or of an absurd size (TooManyPixels).
  """
  with _opened(file, max_pixels) as opened:
    opened.load()
    return to_rgb(_turned(opened))


def kind_of(file: BinaryIO) -> str:
  """Which of FORMATS the picture in an open file has; its header is read and nothing is unpacked.

  Raises:
    UnreadablePicture: As `decode` does, as far as the header tells.
  """
  with _opened(file, MAX_PIXELS) as opened:
    return opened.format


@contextmanager
def _opened(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
  """Whatever is wrong with the file, also what is found out only inside, is an UnreadablePicture."""
  try:
    with Image.open(without_long_texts(file), formats=FORMATS) as opened:
      _check_size(*opened.size, max_pixels)
      yield opened
  except UnreadablePicture:
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise TooManyPixels(_reason(error)) from error
  except Image.UnidentifiedImageError as error:
    is_empty = not file.seek(0, io.SEEK_END)
    raise UnreadablePicture('empty' if is_empty else f'not one of {", ".join(FORMATS)}, or damaged') from error
  except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, OverflowError and more
    raise UnreadablePicture(_reason(error)) from error


def to_rgb(picture: Image.Image) -> Image.Image:
  """Any mode to RGB: transparent parts become white, 16 bits are scaled to 8, floats to their range."""
  if picture.mode.startswith('I') or picture.mode == 'F':
    return Image.fromarray(_to_bytes(np.asarray(picture, np.float64))).convert('RGB')
  if picture.has_transparency_data:
    picture = picture.convert('RGBA')
    white = Image.new('RGBA', picture.size, 'white')
    return Image.alpha_composite(white, picture).convert('RGB')
  return picture.convert('RGB')


def _to_bytes(values: np.ndarray) -> np.ndarray:
  """One channel of any range: as it is up to 255, from 16 bits up to 65535, else from its smallest to its largest."""
  low, high = values.min(), values.max()
  if not np.isfinite(low + high):
    raise UnreadablePicture('holds values that are not finite')
  if low >= 0 and 1 < high <= 65535:
    scaled = values if high <= 255 else values / 257
  elif low >= 0 and high <= 1:
    scaled = values * 255
  else:
    scaled = (values - low) / max(high - low, np.finfo(np.float64).tiny) * 255
  return np.rint(scaled).astype(np.uint8)


def _turned(picture: Image.Image) -> Image.Image:
  try:
    return ImageOps.exif_transpose(picture)
  except Exception:  # a damaged EXIF block is no reason to lose the picture
    return picture


def _check_size(width: int, height: int, max_pixels: int) -> None:
  if width * height > max_pixels:
    raise TooManyPixels(f'{width} x {height} pixels, more than {max_pixels:,}')
  if max(width, height) > MAX_RATIO * min(width, height):
    raise UnreadablePicture(f'{width} x {height} pixels, one side more than {MAX_RATIO} times the other')


def _reason(error: Exception) -> str:
  return one_line(getattr(error, 'strerror', None) or error) or type(error).__name__
