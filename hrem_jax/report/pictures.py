"""Pictures of a data folder, small enough to stand inside a page."""

import base64
import functools
import io
import pathlib

from PIL import Image, ImageOps

FOLDER, SUFFIXES = 'pictures', ('.png', '.jpg', '.jpeg')
SIZE = 256  # pixels of the longer side: shown at about 180, sharp on a phone
_QUALITY = 78


class Pictures:
  """`pictures/{image id}.png` (or .jpg, .jpeg) of a data folder as `data:` addresses."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder / FOLDER
    self.are_there = self._folder.is_dir()
    self._inlined = functools.cache(inlined)

  def address(self, image_id: str) -> str | None:
    """What goes into `src`; None where there is no such picture, or none that can be read."""
    if pathlib.PurePath(image_id).is_absolute() or '..' in pathlib.PurePath(image_id).parts:
      return None  # an id is a name in this folder, never a way out of it
    for suffix in SUFFIXES:
      path = self._folder / f'{image_id}{suffix}'
      try:
        if path.is_file():
          return self._inlined(path)
      except OSError:
        continue  # a broken picture, or a name that no file can have
    return None


def inlined(path: pathlib.Path) -> str:
  """The picture, turned as its EXIF says and scaled down, as a `data:` address; OSError if it cannot be read."""
  with Image.open(path) as opened:
    picture = ImageOps.exif_transpose(opened)
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    picture = picture.convert('RGBA' if picture.has_transparency_data else 'RGB')
  file = io.BytesIO()
  picture.save(file, 'WEBP', quality=_QUALITY)
  return f'data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}'
