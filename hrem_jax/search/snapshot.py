"""One state of an index, as a reader sees it whatever a writer does meanwhile."""

import functools
import io
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.features import open_array
from hrem_jax.errors import UserError, one_line
from hrem_jax.search.manifest import Manifest, Segment, read_manifest
from hrem_jax.search.storage import check_content, check_size, read_checked

SEGMENTS = 'segments'
VECTORS, IDS, ITEMS, OFFSETS = 'embeddings.npy', 'ids.txt', 'items.jsonl', 'offsets.npy'
_CHUNK = 4096  # rows at a time
_CACHED = 2**18  # numbers that are made float32 at a time: a megabyte stays in the cache


class SegmentReader:
  """The files of a segment, mapped: they stay readable when a writer removes them."""

  def __init__(self, folder: pathlib.Path, segment: Segment, size: int, dtype: str):
    self.segment, self._folder = segment, folder
    for name in (VECTORS, IDS, ITEMS, OFFSETS):
      if name not in segment.files:
        raise UserError(f'{folder / name}: not in the manifest: the index is damaged')
      check_size(folder / name, segment.files[name])
    self.vectors = open_array(folder / VECTORS, num_dimensions=2)
    if self.vectors.shape != (segment.rows, size) or self.vectors.dtype != dtype:
      found = f'{self.vectors.dtype} {self.vectors.shape}'
      raise UserError(f'{folder / VECTORS}: {found}, expected {dtype} {(segment.rows, size)}')
    self.ids = read_checked(folder / IDS, segment.files[IDS]).decode().split('\n')[:-1]
    self._offsets = np.load(io.BytesIO(read_checked(folder / OFFSETS, segment.files[OFFSETS])), allow_pickle=False)
    self._items = np.memmap(folder / ITEMS, np.uint8, 'r')
    if len(self.ids) != segment.rows or len(self._offsets) != segment.rows + 1:
      raise UserError(f'{folder / IDS}: {len(self.ids)} ids, expected {segment.rows}: the index is damaged')

  def line(self, row: int) -> bytes:
    """The line of `items.jsonl` of a row, with its end."""
    return self._items[self._offsets[row] : self._offsets[row + 1]].tobytes()

  def item(self, row: int) -> dict:
    try:
      item = json.loads(self.line(row))
      if item['id'] != self.ids[row]:
        raise ValueError(f'id {item["id"]!r}, expected {self.ids[row]!r}')
      return item
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f'{self._folder / ITEMS}: line {row + 1} is damaged: {one_line(error)}') from error

  def problems(self) -> list[str]:
    """Reads everything; a message for each file that is not what was written."""
    found = []
    for name, stamp in self.segment.files.items():
      try:
        check_content(self._folder / name, stamp)
      except UserError as error:
        found.append(str(error))
    return found


class Snapshot:
  """All pictures of one state. Rows are counted over all segments; those of deleted pictures are there, too.

  Attributes:
    ids: Of the pictures, sorted: the same for the same pictures, in whatever order they came.
  """

  def __init__(self, folder: pathlib.Path, manifest: Manifest):
    self.folder, self.manifest = folder, manifest
    self.readers = [
      SegmentReader(folder / SEGMENTS / segment.name, segment, manifest.size, manifest.dtype)
      for segment in manifest.segments
    ]
    self.starts = np.concatenate([[0], np.cumsum([segment.rows for segment in manifest.segments])]).astype(int)
    self.is_there = self._read_deleted()
    names = [name for reader in self.readers for name in reader.ids]
    self._row_of = {name: row for row, name in enumerate(names) if self.is_there[row]}
    self.ids = sorted(self._row_of)
    if len(self.ids) != self.is_there.sum():
      raise UserError(f'{folder}: pictures are in it twice: the index is damaged')

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def order(self) -> Int[np.ndarray, ' n']:
    """The position of each row's id in `ids`; one more than there are for rows that are deleted."""
    order = np.full(len(self.is_there), len(self.ids))
    order[[self._row_of[name] for name in self.ids]] = np.arange(len(self.ids))
    return order

  def row(self, name: str) -> int | None:
    """Where a picture is; None where it is not."""
    return self._row_of.get(name)

  def item(self, row: int) -> dict:
    """What is known of a picture, as in `items.jsonl`."""
    reader, its_row = self.locate(row)
    return reader.item(its_row)

  def locate(self, row: int) -> tuple[SegmentReader, int]:
    """The segment of a row, and its row there."""
    segment = int(np.searchsorted(self.starts, row, side='right')) - 1
    return self.readers[segment], row - int(self.starts[segment])

  def vectors(self, rows: Int[np.ndarray, ' r']) -> Float[np.ndarray, 'r d']:
    """Embeddings of some rows as float32."""
    found = np.empty((len(rows), self.manifest.size), np.float32)
    segments = np.searchsorted(self.starts, rows, side='right') - 1
    for segment in np.unique(segments):
      mine = segments == segment
      found[mine] = self.readers[segment].vectors[rows[mine] - self.starts[segment]]
    return found

  def chunks(self, first: int = 0) -> Iterator[tuple[int, Float[np.ndarray, 'c d']]]:
    """All embeddings, a few at a time as float32, with the row of the first; from the segment number `first` on."""
    chunk = _CHUNK if self.manifest.dtype == 'float32' else max(_CACHED // self.manifest.size, 1)
    for reader, start in zip(self.readers[first:], self.starts[first:], strict=False):
      for row in range(0, len(reader.vectors), chunk):
        yield int(start) + row, np.asarray(reader.vectors[row : row + chunk], np.float32)

  def problems(self) -> list[str]:
    """Reads everything; a message for each file that is not what was written."""
    return [problem for reader in self.readers for problem in reader.problems()]

  def _read_deleted(self) -> Bool[np.ndarray, ' n']:
    is_there, deleted = np.ones(self.manifest.rows, bool), self.manifest.deleted
    if deleted:
      rows = np.load(io.BytesIO(read_checked(self.folder / deleted.name, deleted.stamp)), allow_pickle=False)
      is_there[rows] = False
    return is_there


def open_snapshot(folder: pathlib.Path) -> Snapshot:
  """The newest state of an index.

  Raises:
    UserError: There is no index, or a file of it is damaged; the message names it.
  """
  while True:
    manifest = read_manifest(folder)
    try:
      return Snapshot(folder, manifest)
    except (UserError, OSError) as error:
      if read_manifest(folder).version == manifest.version:
        raise UserError(
          error if isinstance(error, UserError) else f'{folder}: the index is damaged: {error}'
        ) from error
      # A writer has removed files of this state while they were being opened: there is a newer one.
