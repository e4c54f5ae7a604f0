"""What a source of pictures tells about each of them."""

import dataclasses
import hashlib
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import BinaryIO, Protocol

from hrem_jax.data.precomputed import GALLERY
from hrem_jax.errors import UserError
from hrem_jax.paths import expand_home

# Other words for the three splits; `restval` is what Karpathy's COCO split adds to the training pictures.
SYNONYMS = {'val': 'dev', 'valid': 'dev', 'validation': 'dev', 'training': 'train', 'restval': 'train'}
_SPLIT = re.compile(r'[a-z][a-z0-9]{0,31}')


class PackedPicture(Protocol):
  """A picture in a file of many, opened as a path is."""

  size: int  # bytes

  def open(self, mode: str) -> BinaryIO: ...

  def is_dir(self) -> bool: ...


@dataclasses.dataclass(frozen=True)
class Record:
  """One picture of a source."""

  path: pathlib.Path | PackedPicture
  name: str  # as the source spells it: for ids and for people
  captions: tuple[str, ...]  # clean, possibly none
  split: str | None  # None where the source gives none

  def size(self) -> int | None:
    """Bytes of the picture, None where there is none."""
    if isinstance(self.path, pathlib.Path):
      return self.path.stat().st_size if self.path.is_file() else None
    return self.path.size


@dataclasses.dataclass(frozen=True)
class Source:
  """All pictures of a source, in an order that does not depend on the machine."""

  kind: str
  path: pathlib.Path
  records: list[Record]
  notes: list[str] = dataclasses.field(default_factory=list)  # what a person should know

  def digest(self) -> str:
    """SHA-256 of everything that the source says, and of the sizes of the picture files."""
    content = hashlib.sha256()
    for record in self.records:
      content.update(json.dumps([record.name, record.captions, record.split, record.size()]).encode() + b'\n')
    return content.hexdigest()


def clean_caption(text: str) -> str:
  """One line that UTF-8 can hold: runs of whitespace, control characters and half characters become one space."""
  return ' '.join(''.join(' ' if unicodedata.category(c) in ('Cc', 'Cs') or c == '\ufeff' else c for c in text).split())


def clean_captions(texts: Iterable[str]) -> tuple[str, ...]:
  """Those that are not empty."""
  return tuple(caption for caption in map(clean_caption, texts) if caption)


def split_name(value: str, place: str) -> str | None:
  """The split that a source's word means, None for an empty one.

  Args:
    value: `train`, `dev`, `test`, one of SYNONYMS, or a name of the user's own.
    place: File and line, for the message.

  Raises:
    UserError: It cannot be the name of a split.
  """
  name = value.strip().lower()
  name = SYNONYMS.get(name, name)
  if name and not _SPLIT.fullmatch(name):
    raise UserError(f'{place}: split {value!r}, expected train, dev, test or another word of letters and digits')
  return name or None


class RecordCollector:
  """Rows of a table to records: rows of the same picture become one, with all their captions."""

  def __init__(self, root: pathlib.Path):
    self._root = root
    self._rows: dict[str, tuple[pathlib.Path, list[str], str | None, str]] = {}

  def add(self, name: str, captions: Iterable[str], split: str | None, place: str) -> None:
    """Takes a row.

    Args:
      name: Path of the picture, absolute or from the root.
      captions: Those of this row.
      split: None where the row gives none.
      place: File and line, for messages.

    Raises:
      UserError: The path is empty or no path, or an earlier row of the picture had another split.
    """
    if not name.strip() or '\0' in name:
      raise UserError(f'{place}: {name!r} as the path of a picture, expected a file')
    try:
      path = self._root / expand_home(name)
    except UserError as error:
      raise UserError(f'{place}: {error}') from error
    key = str(path)
    _, texts, earlier, its_place = self._rows.setdefault(key, (path, [], split, place))
    if earlier != split:
      raise UserError(f'{place}: {name} is in the split {split}, but in {earlier} by {its_place}')
    texts += clean_captions(captions)

  def records(self) -> list[Record]:
    """In the order in which they came."""
    return [self._record(path, captions, split, place) for path, captions, split, place in self._rows.values()]

  def _record(self, path: pathlib.Path, captions: list[str], split: str | None, place: str) -> Record:
    if split == GALLERY and captions:
      raise UserError(f'{place}: {path.name} has captions, but the split {GALLERY} is for pictures without any')
    name = path.relative_to(self._root) if path.is_relative_to(self._root) else path
    return Record(path, name.as_posix(), tuple(captions), split)
