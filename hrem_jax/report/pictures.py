"""Pictures of a data folder, small enough to stand inside a page."""

import base64
import functools
import io
import pathlib

from PIL import Image

from hrem_jax.extraction.decoding import UnreadablePicture, open_picture

FOLDER, SUFFIXES = 'pictures', ('.png', '.jpg', '.jpeg')
THUMBNAIL_SIZE = 56  # shown at 28
SIZE = 256  # pixels of the longer side: shown at about 180, sharp on a phone
_QUALITY = 78


class Pictures:
  """`pictures/{image id}.png` (or .jpg, .jpeg) of a data folder as `data:` addresses.

  Attributes:
    problems: The files that are no pictures, and why.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder / FOLDER
    self.are_there = self._folder.is_dir()
    self.problems: dict[pathlib.Path, str] = {}
    self._inlined = functools.cache(inlined)

  def placed(self, image_id: str) -> tuple[str, float] | None:
    """Address, and width over height."""
    return self._find(image_id, SIZE)

  def thumbnail(self, image_id: str) -> str | None:
    """As `address`, a few hundred bytes."""
    return self.address(image_id, THUMBNAIL_SIZE)

  def address(self, image_id: str, size: int = SIZE) -> str | None:
    """What goes into `src`; None where there is no such picture, or none that can be read."""
    found = self._find(image_id, size)
    return None if found is None else found[0]

  def _find(self, image_id: str, size: int) -> tuple[str, float] | None:
    if pathlib.PurePath(image_id).is_absolute() or '..' in pathlib.PurePath(image_id).parts:
      return None  # an id is a name in this folder, never a way out of it
    for path in (self._folder / f'{image_id}{suffix}' for suffix in SUFFIXES):
      if path in self.problems or not _is_file(path):
        continue
      try:
        return self._inlined(path, size)
      except UnreadablePicture as error:
        self.problems[path] = str(error)
    return None


def _is_file(path: pathlib.Path) -> bool:
  try:
    return path.is_file()
  except OSError:
    return False  # a name that no file can have


def inlined(path: pathlib.Path, size: int = SIZE) -> tuple[str, float]:
  """The picture, scaled down, as a `data:` address, and its width over its height.

  Raises:
    UnreadablePicture: It cannot be read.
  """
  with open_picture(path) as (picture, _):
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  picture.save(file, 'WEBP', quality=_QUALITY)
  return f'data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}', picture.width / picture.height
