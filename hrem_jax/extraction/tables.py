"""Tables of pictures and captions: CSV and TSV with a header, and JSON lines. Both know the same names of columns."""

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hrem_jax.errors import UserError, one_line
from hrem_jax.extraction.records import Record, RecordCollector, split_name

COLUMNS = {
  'picture': (
    *('filepath', 'file_path', 'path', 'image', 'image_path', 'image_name', 'filename', 'file_name', 'file'),
    *('picture', 'photo'),
  ),
  'caption': ('title', 'caption', 'captions', 'text', 'comment', 'sentence', 'description'),
  'split': ('split',),
}
DELIMITERS = ',\t;|'


def read_table(path: pathlib.Path, root: pathlib.Path) -> list[Record]:
  """CSV, TSV, or the like with one of DELIMITERS; several rows may belong to one picture.

  Args:
    path: With a header, `filepath,title` or other names of COLUMNS.
    root: From where the paths in it count.

  Raises:
    UserError: The header is not understood, or a row is wrong; the message names the line.
  """
  collector = RecordCollector(root)
  with path.open('r', encoding='utf-8-sig', newline='') as file:
    rows = _rows(path, file)
    _, header = next(rows, (1, []))
    columns = _columns(header, path)
    for line, row in rows:
      place = f'{path}: line {line}'
      if len(row) != len(header):
        raise UserError(f'{place}: {len(row)} fields, but the header has {len(header)} ({", ".join(header)})')
      fields = {role: row[column] for role, column in columns.items()}
      split = split_name(fields.get('split', ''), place)
      collector.add(fields['picture'].strip(), [fields.get('caption', '')], split, place)
  return collector.records()


def _rows(path: pathlib.Path, file) -> Iterator[tuple[int, list[str]]]:
  """The line on which each row ends, and its fields; empty lines are left out."""
  try:
    delimiter = _delimiter(file.readline())
    file.seek(0)
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    begins = 1
    for row in rows:
      if any(field.strip() for field in row):
        yield rows.line_num, row
      begins = rows.line_num + 1
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8: byte {error.object[error.start]:#04x}; save it as UTF-8') from error
  except csv.Error as error:
    until = f' (a quote that is never closed? read up to line {rows.line_num})' if rows.line_num > begins else ''
    raise UserError(f'{path}: line {begins}: {one_line(error)}{until}') from error


def _delimiter(header: str) -> str:
  """The one that stands in the header most often; names of columns hold none of them."""
  return max(DELIMITERS, key=header.count)


def _columns(header: Sequence[str], path: pathlib.Path) -> dict[str, int]:
  """The position of each role."""
  names = [name.strip().lower() for name in header]
  columns = {}
  for role, known in COLUMNS.items():
    found = [position for position, name in enumerate(names) if name in known]
    if len(found) > 1:
      shown = ' and '.join(repr(header[position]) for position in found)
      raise UserError(f'{path}: line 1: {shown} are both columns of the {role}, expected one')
    if found:
      columns[role] = found[0]
  is_list_of_pictures = 'picture' in columns and len(columns) == len(names)
  if 'picture' not in columns or ('caption' not in columns and not is_list_of_pictures):
    missing = 'caption' if 'picture' in columns else 'picture'
    raise UserError(
      f'{path}: line 1: no column of the {missing} in the header {", ".join(map(repr, header)) or "(none)"}, '
      f'expected one of {", ".join(COLUMNS[missing])}'
    )
  return columns


def read_json_lines(path: pathlib.Path, root: pathlib.Path) -> list[Record]:
  """One object a line: `image`, and `caption` (a string) or `captions` (a list of them), and `split` if there is one.

  Args:
    path: UTF-8; the other names of COLUMNS serve, too.
    root: From where the paths in it count.

  Raises:
    UserError: A line is no such object; the message names it.
  """
  collector = RecordCollector(root)
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      if not line.strip():
        continue
      place = f'{path}: line {number}'
      content = _parse(line, place)
      picture = _string(content, 'picture', place)
      collector.add(picture, _captions(content, place), split_name(_string(content, 'split', place), place), place)
  return collector.records()


def _parse(line: bytes, place: str) -> dict[str, Any]:
  try:
    content = json.loads(line.decode('utf-8-sig'))
  except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
    raise UserError(f'{place}: not JSON: {one_line(error)}') from error
  if not isinstance(content, dict):
    raise UserError(f'{place}: {type(content).__name__}, expected an object with image and caption')
  return content


def _string(content: Mapping[str, Any], role: str, place: str) -> str:
  """The value of a role; empty where there is none, which only pictures must not be."""
  key = next((key for key in COLUMNS[role] if content.get(key) is not None), None)
  if key is None and role == 'picture':
    raise UserError(f'{place}: no picture among {", ".join(content) or "no keys"}, expected {COLUMNS[role][3]!r}')
  value = '' if key is None else content[key]
  if not isinstance(value, str):
    raise UserError(f'{place}: {key!r} is {type(value).__name__}, expected a string')
  return value


def _captions(content: Mapping[str, Any], place: str) -> list[str]:
  captions = []
  for key in COLUMNS['caption']:
    value = content.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    wrong = next((each for each in values if not isinstance(each, str)), None)
    if wrong is not None or isinstance(value, dict):
      raise UserError(f'{place}: {key!r} holds {type(wrong).__name__}, expected a string or a list of strings')
    captions += values
  return captions
