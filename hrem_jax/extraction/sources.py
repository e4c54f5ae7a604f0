"""Where pictures and captions come from: a folder, a table, JSON lines, Karpathy's split file or TFDS."""

import os
import pathlib
from collections.abc import Iterator

from hrem_jax.errors import UserError
from hrem_jax.extraction.karpathy import read_karpathy
from hrem_jax.extraction.records import Record, Source, clean_captions
from hrem_jax.extraction.tables import read_json_lines, read_table
from hrem_jax.paths import local_path

PICTURE_SUFFIXES = (
  *('.jpg', '.jpeg', '.jfif', '.png', '.webp', '.gif', '.bmp'),
  *('.tif', '.tiff', '.ppm', '.pgm', '.jp2', '.avif'),
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
  names = sorted(_picture_names(folder))
  if not names:
    raise UserError(f'{folder}: no pictures in it or below (looked for {" ".join(PICTURE_SUFFIXES)})')
  captions: dict[pathlib.Path, tuple[str, ...]] = {}
  records = []
  for name in names:
    text = (folder / name).with_suffix('.txt')
    if text not in captions:
      captions[text] = _read_captions(text)
    records.append(Record(folder / name, name, captions[text], None))
  return Source('folder', folder, records, _hints(folder, records))


def _picture_names(folder: pathlib.Path) -> Iterator[str]:
  """Paths below the folder, of pictures that are not hidden."""
  for current, folders, files in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in files:
      if not name.startswith('.') and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:
        yield (pathlib.Path(current) / name).relative_to(folder).as_posix()


def _read_captions(path: pathlib.Path) -> tuple[str, ...]:
  if not path.is_file():
    return ()
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
