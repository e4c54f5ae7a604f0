"""Pictures of a data folder, small enough to stand inside a page."""

import base64
import functools
import io
import pathlib

from PIL import Image, ImageOps

FOLDER, SUFFIXES = 'pictures', ('.png', '.jpg', '.jpeg')
THUMBNAIL_SIZE = 56  # shown at 28
SIZE = 256  # pixels of the longer side: shown at about 180, sharp on a phone
_QUALITY = 78


class Pictures:
  """`pictures/{image id}.png` (or .jpg, .jpeg) of a data folder as `data:` addresses."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder / FOLDER
    self.are_there = self._folder.is_dir()
    self._inlined = functools.cache(inlined)

  def placed(self, image_id: str) -> tuple[str, float] | None:
    """Address, and width over height."""
    address = self.address(image_id)
    if address is None:
      return None
    with Image.open(io.BytesIO(base64.b64decode(address.partition(',')[2]))) as picture:
      return address, picture.width / picture.height

  def thumbnail(self, image_id: str) -> str | None:
    """As `address`, a few hundred bytes."""
    return self.address(image_id, THUMBNAIL_SIZE)

  def address(self, image_id: str, size: int = SIZE) -> str | None:
    """What goes into `src`; None where there is no such picture, or none that can be read."""
    if pathlib.PurePath(image_id).is_absolute() or '..' in pathlib.PurePath(image_id).parts:
      return None  # an id is a name in this folder, never a way out of it
    for suffix in SUFFIXES:
      path = self._folder / f'{image_id}{suffix}'
      try:
        if path.is_file():
          return self._inlined(path, size)
      except OSError:
        continue  # a broken picture, or a name that no file can have
    return None


def inlined(path: pathlib.Path, size: int = SIZE) -> str:
  """The picture, turned as its EXIF says and scaled down, as a `data:` address; OSError if it cannot be read."""
  with Image.open(path) as opened:
    picture = ImageOps.exif_transpose(opened)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    picture = picture.convert('RGBA' if picture.has_transparency_data else 'RGB')
  file = io.BytesIO()
  picture.save(file, 'WEBP', quality=_QUALITY)
  return f'data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}'
