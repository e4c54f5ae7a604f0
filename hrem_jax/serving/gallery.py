"""The picture files that may be shown: real pictures inside the gallery's folders."""

import io
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hrem_jax.extraction.decoding import UnreadablePicture, kind_of
from hrem_jax.serving.limits import MAX_SHOWN

# What browsers show. MPO is a JPEG with more pictures behind the first.
_TYPES = {
  'JPEG': 'image/jpeg',
  'MPO': 'image/jpeg',
  'PNG': 'image/png',
  'WEBP': 'image/webp',
  'GIF': 'image/gif',
  'BMP': 'image/bmp',
  'AVIF': 'image/avif',
}


class PictureFile(NamedTuple):
  content: bytes
  kind: str  # its media type


class Gallery:
  """Folders from which pictures are shown.

  Args:
    folders: Tells them; asked each time, as an index may get more. Nothing outside them is read, wherever links lead.
  """

  def __init__(self, folders: Callable[[], Iterable[pathlib.Path]]):
    self._folders = folders

  def open(self, path: pathlib.Path) -> PictureFile | None:
    """The file, or None where it is not there, not inside the folders, not a picture, or too large."""
    try:
      real = path.resolve(strict=True)
      is_inside = any(real.is_relative_to(folder.resolve()) for folder in self._folders())
      if not is_inside or not real.is_file() or real.stat().st_size > MAX_SHOWN:
        return None
      content = real.read_bytes()
    except (OSError, ValueError, RuntimeError):  # gone, a NUL in the name, links in a circle
      return None
    kind = _kind(content)
    return PictureFile(content, kind) if kind else None


def _kind(content: bytes) -> str | None:
  """The media type by what is in the file: its name may say anything."""
  try:
    return _TYPES.get(kind_of(io.BytesIO(content)))
  except UnreadablePicture:
    return None
