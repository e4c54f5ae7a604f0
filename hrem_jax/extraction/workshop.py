"""The unfinished data set: what survives a stop at any moment, so that the same command goes on."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from hrem_jax.data.provenance import differences
from hrem_jax.errors import UserError
from hrem_jax.files import read_json_object, write_text
from hrem_jax.locks import only_writer

SUFFIX = '.unfinished'
SETTINGS, _JOURNAL = 'settings.json', 'journal.jsonl'
_TEMPORARY = re.compile(r'\.[0-9a-f]{8}\..+')  # of `hrem_jax.files.replacing`


class Workshop:
  """A folder beside the data set to be, with the features of the pictures so far.

  Pictures are encoded in chunks of fixed members: a chunk's features are written first, and then the line of the
  journal that makes them count. What follows the last whole line is overwritten.

  Args:
    folder: Created where it is missing.
    settings: Everything that decides the result, JSON-able.
    row_bytes: File names, and the bytes that each of them gets for a chunk.

  Raises:
    UserError: The folder was begun with other settings, or another process works in it.
  """

  def __init__(self, folder: pathlib.Path, settings: dict, row_bytes: dict[str, int]):
    self.folder, self._row_bytes = folder, row_bytes
    self.result = folder / 'result'  # becomes the data set
    self._held = contextlib.ExitStack()
    self._held.enter_context(only_writer(folder))
    try:
      self._check_settings(settings)
      self.outcomes = self._read_journal()
      _remove_temporary(self.result.rglob('.*'))
    except BaseException:
      self._held.close()
      raise

  def __enter__(self) -> 'Workshop':
    return self

  def __exit__(self, *_) -> None:
    self._held.close()
    if not (self.folder / SETTINGS).exists():  # finished
      with contextlib.suppress(OSError):
        self.folder.rmdir()

  def path(self, name: str) -> pathlib.Path:
    return self.folder / name

  def add(self, arrays: dict[str, np.ndarray], outcomes: Sequence[dict]) -> None:
    """The next chunk: its arrays are on the disk before the journal says so."""
    chunk = len(self.outcomes)
    for name, array in arrays.items():
      _write_at(self.path(name), chunk * self._row_bytes[name], np.ascontiguousarray(array))
    with self.path(_JOURNAL).open('ab') as file:
      file.write(json.dumps(list(outcomes)).encode() + b'\n')
      file.flush()
      os.fsync(file.fileno())
    self.outcomes.append(list(outcomes))

  def finish(self, destination: pathlib.Path) -> None:
    """The result becomes the data set in one step; then the rest goes."""
    os.replace(self.result, destination)
    remove_rest(self.folder, self._row_bytes)

  def _check_settings(self, settings: dict) -> None:
    path = self.path(SETTINGS)
    if not path.is_file():
      write_text(path, json.dumps(settings, indent=2) + '\n')
      return
    changed = differences(read_json_object(path), settings)
    if changed:
      raise UserError(
        f'{self.folder}: was begun with other settings ({"; ".join(changed)}); give the old ones to go on, or remove '
        'this folder to begin anew'
      )

  def _read_journal(self) -> list[list[dict]]:
    """The outcomes of each chunk; a last line that was cut off is cut away."""
    path = self.path(_JOURNAL)
    if not self.result.is_dir():  # a new start, or the data set was finished and then removed, small pictures and all
      path.unlink(missing_ok=True)
      self.result.mkdir()
    if not path.is_file():
      return []
    content = path.read_bytes()
    whole = content[: content.rfind(b'\n') + 1]
    if len(whole) < len(content):
      with path.open('r+b') as file:
        file.truncate(len(whole))
    lines = enumerate(whole.splitlines(), start=1)
    return [_outcomes(line, f'{path}: line {number}') for number, line in lines]


def _outcomes(line: bytes, place: str) -> list[dict]:
  """What a line of the journal says of a chunk; UserError, `place` naming the line, where it is none."""
  try:
    outcomes = json.loads(line)
  except (ValueError, RecursionError):
    outcomes = None
  if not isinstance(outcomes, list) or not all(isinstance(outcome, dict) for outcome in outcomes):
    raise UserError(f'{place} is damaged, expected what is done; remove the folder to begin anew')
  return outcomes


def remove_rest(folder: pathlib.Path, names: Iterable[str]) -> None:
  """What is left of an extraction that is finished; files that it did not make stay, and so does their folder.

  Args:
    folder: Of the workshop.
    names: Of the files for arrays.
  """
  for name in (*names, _JOURNAL, SETTINGS):
    (folder / name).unlink(missing_ok=True)
  _remove_temporary(folder.glob('.*'))


def _remove_temporary(paths: Iterable[pathlib.Path]) -> None:
  """What a stop left of files that were being written."""
  for path in list(paths):
    if _TEMPORARY.fullmatch(path.name) and path.is_file():
      path.unlink()


def _write_at(path: pathlib.Path, position: int, array: Float[np.ndarray, '...']) -> None:
  """Written, not mapped: a full disk is an error here, and death there."""
  with path.open('r+b' if path.exists() else 'w+b') as file:
    file.seek(position)
    file.write(array.data.cast('B'))
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def explaining(folder: pathlib.Path):
  """Turns what the system refuses (a full disk, no right to write) into a message that says how to go on."""
  try:
    yield
  except OSError as error:
    name = error.filename or folder
    raise UserError(f'{name}: {error.strerror or error}; what is done is kept, the same command goes on') from error
