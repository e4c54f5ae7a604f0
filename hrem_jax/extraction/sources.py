"""Where pictures and captions come from: a folder, a table, JSON lines, Karpathy's split file or TFDS."""

import os
import pathlib
from collections import Counter
from typing import NamedTuple

from hrem_jax.data.precomputed import SUFFIX
from hrem_jax.data.provenance import PROVENANCE
from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import FORMATS, HEIF_SUFFIXES
from hrem_jax.extraction.karpathy import read_karpathy
from hrem_jax.extraction.records import Record, Source, clean_captions
from hrem_jax.extraction.tables import read_json_lines, read_table
from hrem_jax.extraction.workshop import SETTINGS
from hrem_jax.extraction.workshop import SUFFIX as UNFINISHED
from hrem_jax.paths import local_path

PICTURE_SUFFIXES = (
  *('.jpg', '.jpeg', '.jfif', '.png', '.webp', '.gif', '.bmp'),
  *('.tif', '.tiff', '.ppm', '.pgm', '.jp2', '.avif'),
  *(HEIF_SUFFIXES if 'HEIF' in FORMATS else ()),
)
_HINTS = (
  (
    () if 'HEIF' in FORMATS else HEIF_SUFFIXES,
    "HEIC pictures are read once pillow-heif is installed: pip install 'hrem_jax[heic]'",
  ),
  (('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.rw2', '.raf'), 'raw pictures: export them as JPEG'),
  (('.txt',), 'captions are read from a.txt beside a.jpg'),
)
READERS = {
  '.csv': read_table,
  '.tsv': read_table,
  '.jsonl': read_json_lines,
  '.ndjson': read_json_lines,
  '.json': read_karpathy,
}


def read_source(path: pathlib.Path, root: pathlib.Path | None = None) -> Source:
  """Reads what there is to extract; no picture is opened.

  Args:
    path: A folder of pictures with captions in `.txt` files of the same name; a CSV or TSV file with a header; JSON
      lines; `dataset_*.json` in Karpathy's format; or the folder `NAME/CONFIG/VERSION` of a TFDS data set.
    root: From where the paths in a file count; the file's own folder if None.

  Raises:
    UserError: There is no picture, or something is wrong; the message names file, line and what was expected.
  """
  path = local_path(path)
  if path.is_dir():
    if root is not None:
      raise UserError(f'--root {root}: is for tables of pictures, but {path} is a folder')
    return _read_tfds(path) if (path / 'dataset_info.json').is_file() else _read_folder(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file or folder')
  reader = READERS.get(path.suffix.lower())
  if reader is None:
    raise UserError(f'{path}: expected a folder of pictures or a file that ends in {", ".join(READERS)}')
  root = path.parent if root is None else local_path(root)
  if not root.is_dir():
    raise UserError(f'--root {root}: no such folder')
  source = Source(path.suffix.lower().removeprefix('.'), path, reader(path, root))
  if not source.records:
    raise UserError(f'{path}: no pictures in it')
  return source


def _read_tfds(folder: pathlib.Path) -> Source:
  from hrem_jax.extraction.tfds_pictures import read_tfds  # half a second that folders and tables need not wait for

  return Source('tfds', folder, read_tfds(folder))


def _read_folder(folder: pathlib.Path) -> Source:
  walk = walk_folder(folder)
  pictures = sorted(name for name in walk.names if is_picture(name))
  if not pictures:
    what = f'{folder}: no pictures in it or below (looked for {" ".join(PICTURE_SUFFIXES)})'
    raise UserError('; '.join([what, *_left_out(folder, walk, set())]))
  texts = sorted((name for name in walk.names if name.lower().endswith('.txt')), key=lambda name: name.endswith('.txt'))
  text_of, stems = {_stem(name): name for name in texts}, set(map(_stem, pictures))  # of several `.txt` wins
  captions = {text: _read_captions(folder / text) for stem, text in text_of.items() if stem in stems}
  records = [Record(folder / name, name, captions.get(text_of.get(_stem(name), ''), ()), None) for name in pictures]
  notes = [*_hints(folder, records), *_left_out(folder, walk, {*pictures, *captions})]
  return Source('folder', folder, records, notes)


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def is_picture(name: str) -> bool:
  return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


class Walk(NamedTuple):
  """What lies in a folder and below, hidden files aside: paths from there."""

  names: list[str]
  links: list[str]  # to folders, which are not followed: they may lead in circles
  data_sets: list[str]  # of ours, in which small pictures would be found once more


def walk_folder(folder: pathlib.Path) -> Walk:
  walk = Walk([], [], [])
  for current, folders, files in os.walk(folder):
    place = pathlib.Path(current)
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in list(folders):
      kind = walk.links if (place / name).is_symlink() else walk.data_sets if is_our_data_set(place / name) else None
      if kind is not None:
        kind.append((place / name).relative_to(folder).as_posix())
        folders.remove(name)
    walk.names.extend((place / name).relative_to(folder).as_posix() for name in files if not name.startswith('.'))
  return walk


def is_our_data_set(folder: pathlib.Path) -> bool:
  """Whether `extract` made it, or is about to."""
  begun = folder.name.endswith(f'{SUFFIX}{UNFINISHED}') and (folder / SETTINGS).is_file()
  return begun or (folder.name.endswith(SUFFIX) and (folder / PROVENANCE).is_file())


def _left_out(folder: pathlib.Path, walk: Walk, taken: set[str]) -> list[str]:
  """Everything that lies there and is not taken, counted by kind, with what to do about it."""
  notes = []
  kinds = Counter(os.path.splitext(name)[1].lower() or 'no ending' for name in walk.names if name not in taken)
  if kinds:
    counts = [f'{count:,} {kind}' for kind, count in kinds.most_common(8)]
    more = sum(kinds.values()) - sum(count for _, count in kinds.most_common(8))
    hints = [hint for endings, hint in _HINTS if any(kinds[ending] for ending in endings)]
    notes.append(
      f'{folder}: files that were not taken: {", ".join(counts)}{f", {more:,} others" if more else ""}'
      + ''.join(f'; {hint}' for hint in hints)
    )
  for found, what in ((walk.links, 'links to folders, which are not followed'), (walk.data_sets, 'data sets of ours')):
    if found:
      notes.append(f'{folder}: not looked into: {len(found):,} {what}, the first is {sorted(found)[0]}')
  return notes


def _read_captions(path: pathlib.Path) -> tuple[str, ...]:
  captions = []
  for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    try:
      captions.append(line.decode('utf-8'))
    except UnicodeDecodeError as error:
      raise UserError(f'{path}: line {number} is not UTF-8: byte {error.object[error.start]:#04x}') from error
  return clean_captions(captions)


def _hints(folder: pathlib.Path, records: list[Record]) -> list[str]:
  """Where captions may be that were not found."""
  tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in READERS)
  if any(record.captions for record in records) or not tables:
    return []
  return [f'{folder}: no captions (a.jpg wants a.txt); did you mean --images {folder / tables[0]}?']
