"""PNG files with more text than Pillow reads: viewers show them, and so do we, without that text."""

import io
import struct
import zlib
from typing import BinaryIO

from PIL import PngImagePlugin

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_TEXTS = (b'tEXt', b'zTXt', b'iTXt', b'iCCP')  # prompts, histories of edits, profiles of colours


def without_long_texts(file: BinaryIO) -> BinaryIO:
  """The file from where it stands; of a PNG with texts or profiles over Pillow's bounds, a copy without those.

  Nothing that makes the pixels is looked at: what is damaged there is for Pillow to find.
  """
  start = file.tell()
  is_png = file.read(len(_SIGNATURE)) == _SIGNATURE
  long = _long_texts(file) if is_png else []
  file.seek(start)
  if not long:
    return file
  content, kept = file.read(), 0
  copy = io.BytesIO()
  for position, size in long:
    copy.write(content[kept : position - start])
    kept = position - start + size
  copy.write(content[kept:])
  copy.seek(0)
  return copy


def _long_texts(file: BinaryIO) -> list[tuple[int, int]]:
  """Position and size of the chunks that are left out: too long each, or one too many."""
  long, room = [], PngImagePlugin.MAX_TEXT_MEMORY
  while len(head := file.read(8)) == 8:
    size, kind = struct.unpack('>I4s', head)
    if kind == b'IEND':
      break
    position = file.tell() - 8
    if kind in _TEXTS:
      num_bytes = _unpacked(file.read(size))
      if num_bytes > min(PngImagePlugin.MAX_TEXT_CHUNK, room):
        long.append((position, size + 12))
      else:
        room -= num_bytes
    file.seek(position + size + 12)  # length, kind and checksum beside the data
  return long


def _unpacked(data: bytes) -> int:
  """Bytes of a text, as far as they matter: up to one more than is allowed."""
  most = PngImagePlugin.MAX_TEXT_CHUNK + 1
  for start in (place for place in range(len(data[:400])) if data[place : place + 1] == b'\x78'):  # zlib's first byte
    try:
      return max(len(data), len(zlib.decompressobj().decompress(data[start:], most)))
    except zlib.error:
      continue
  return len(data)
