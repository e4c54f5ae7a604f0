"""Names for pictures that are unique, speak to people and can be file names anywhere."""

import hashlib
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MAX_BYTES = 120  # of an id in UTF-8: file systems allow 255 with everything that is added
# What Windows takes for devices, whatever the ending.
_RESERVED = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


def picture_ids(names: Sequence[str]) -> list[str]:
  """One id for each picture, in their order.

  The file name without its ending; where several have the same, with the folders before it; where that is still not
  enough, with a number behind it. Upper and lower case count as the same, as they do on some file systems.

  Args:
    names: Paths, each once.
  """
  stems = [safe_name(pathlib.PurePosixPath(name).stem) for name in names]
  times = Counter(map(str.casefold, stems))
  wanted = [
    stem if times[stem.casefold()] == 1 else safe_name('_'.join(_parts(name)))
    for name, stem in zip(names, stems, strict=True)
  ]
  times, taken = Counter(map(str.casefold, wanted)), set()
  taken |= {key for key, count in times.items() if count == 1}
  return [each if times[each.casefold()] == 1 else _numbered(each, taken) for each in wanted]


def safe_name(text: str) -> str:
  """Letters, digits, `_`, `-` and `.` (not first or last) of any script; everything else becomes `_`."""
  normal = unicodedata.normalize('NFKC', text)
  name = re.sub(r'[^\w.-]+', '_', normal).strip('.-') or 'picture'
  name = f'_{name}' if _RESERVED.match(name) else name
  if len(name.encode()) > MAX_BYTES:
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    name = f'{name.encode()[: MAX_BYTES - 11].decode(errors="ignore")}-{digest}'
  return name


def _parts(name: str) -> list[str]:
  path = pathlib.PurePosixPath(name)
  return [part for part in (*path.parent.parts, path.stem) if part != path.root]


def _numbered(name: str, taken: set[str]) -> str:
  """`name` if it is free, or with the first free number; it is taken then."""
  number, candidate = 1, name
  while candidate.casefold() in taken:
    number += 1
    candidate = f'{name}-{number}'
  taken.add(candidate.casefold())
  return candidate
