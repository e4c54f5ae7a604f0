"""How often a JPEG goes over its picture: each scan costs as much as the picture, and a few bytes in the file."""

import re
from typing import BinaryIO

MAX_SCANS = 100  # encoders make about ten
# Within a scan 0xFF is followed by 0 where it is data, and by D0 to D7 where it restarts.
_MARKER = re.compile(rb'\xff([^\x00\xd0-\xd7\xff])')
_START_OF_SCAN, _END = 0xDA, 0xD9
_ALONE = {0x01, 0xD8}  # markers without a length


def has_too_many_scans(file: BinaryIO) -> bool:
  """Whether the JPEG that begins where the file stands has more than `MAX_SCANS`; where it stands stays the same."""
  start = file.tell()
  content = file.read()
  file.seek(start)
  position = scans = 0
  while (found := _MARKER.search(content, position)) and scans <= MAX_SCANS:
    kind, position = found[1][0], found.end()
    if kind == _END:
      break
    scans += kind == _START_OF_SCAN
    if kind not in _ALONE:
      position += max(int.from_bytes(content[position : position + 2]), 2)
  return scans > MAX_SCANS
