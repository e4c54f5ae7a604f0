"""Changing an index: pictures come and go without a rebuild, and a stop at any moment leaves the old state whole."""

import contextlib
import dataclasses
import io
import json
import pathlib
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.errors import UserError
from hrem_jax.search.manifest import DTYPES, MANIFEST, Deleted, Manifest, Place, Segment
from hrem_jax.search.snapshot import IDS, ITEMS, OFFSETS, SEGMENTS, VECTORS, Snapshot, open_snapshot
from hrem_jax.search.storage import LOCK, locked, replace_file, sync_folder, write_file

FANOUT = 8  # segments of about the same size are made one when there are so many
MOST_DELETED = 0.25  # of the rows, before all are written anew
_CHUNK = 1024  # rows that are copied at a time


@dataclasses.dataclass(frozen=True)
class Item:
  """What an index keeps of a picture beside its embedding."""

  id: str
  captions: tuple[str, ...]
  fingerprint: str  # of everything that it was made of
  source: pathlib.Path | None = None  # folder of its data set
  picture: str | None = None  # a file in there


class IndexWriter:
  """The one writer of an index, of `open_writer`. Every method is one change: it is whole, or did not happen.

  Attributes:
    snapshot: What is in the index now.
  """

  def __init__(self, folder: pathlib.Path, snapshot: Snapshot):
    self.folder, self.snapshot = folder, snapshot

  def add(self, items: Sequence[Item], embeddings: Float[np.ndarray, 'n d']) -> None:
    """Adds pictures; those with the same ids are replaced.

    Raises:
      UserError: An id comes twice or is none, or the embeddings are not so many unit vectors of the index's size.
    """
    if not items:
      return
    manifest, snapshot = self.snapshot.manifest, self.snapshot
    _check(items, embeddings, manifest.size, self.folder)
    is_there = snapshot.is_there.copy()
    is_there[[row for item in items if (row := snapshot.row(item.id)) is not None]] = False
    kept = len(manifest.segments) - num_merged([segment.rows for segment in manifest.segments], len(items))
    start = int(snapshot.starts[kept])
    sources = list(manifest.sources)
    lines = [_line(item, sources, self.folder) for item in items]
    old = start + np.flatnonzero(is_there[start:])
    segment = self._write_segment(old, [item.id for item in items], lines, embeddings.astype(manifest.dtype))
    manifest = dataclasses.replace(
      manifest, segments=(*manifest.segments[:kept], segment), sources=tuple(sources), next_name=manifest.next_name + 1
    )
    self._commit(manifest, np.concatenate([is_there[:start], np.ones(segment.rows, bool)]))

  def delete(self, ids: Sequence[str]) -> None:
    """Deletes pictures. When a quarter of the rows is deleted, the others are written anew.

    Raises:
      UserError: One is not there; then nothing is deleted.
    """
    rows = {name: self.snapshot.row(name) for name in ids}
    if missing := [name for name, row in rows.items() if row is None]:
      more = f' and {len(missing) - 1} other(s)' if len(missing) > 1 else ''
      raise UserError(f'{self.folder}: no picture {missing[0]!r}{more} in this index; nothing was deleted')
    if rows:
      is_there = self.snapshot.is_there.copy()
      is_there[list(rows.values())] = False
      self._commit(self.snapshot.manifest, is_there)

  def compact(self) -> None:
    """Writes all that is not deleted anew, as one segment."""
    manifest, rows = self.snapshot.manifest, np.flatnonzero(self.snapshot.is_there)
    segments = ()
    if len(rows):
      segments = (self._write_segment(rows, [], [], np.empty((0, manifest.size), manifest.dtype)),)
    manifest = dataclasses.replace(manifest, segments=segments, next_name=manifest.next_name + 1)
    self._commit(manifest, np.ones(len(rows), bool))

  def remember(self, place: Place, picture_encoder: Place | None) -> None:
    """Where the encoder is now, and that of the pictures (None: as it is known)."""
    manifest = self.snapshot.manifest
    encoder = manifest.encoder | {'place': dataclasses.asdict(place)}
    new = dataclasses.replace(manifest, encoder=encoder, picture_encoder=picture_encoder or manifest.picture_encoder)
    if new != manifest:
      self._commit(new, self.snapshot.is_there)

  def tidy(self) -> None:
    """Gives back what deleted pictures take, where it is much, and removes what a stop has left."""
    is_there = self.snapshot.is_there
    if (~is_there).sum() > MOST_DELETED * len(is_there):
      self.compact()
    self._remove_garbage()

  def _write_segment(
    self, rows: Int[np.ndarray, ' o'], ids: Sequence[str], lines: Sequence[bytes], vectors: Float[np.ndarray, 'n d']
  ) -> Segment:
    """A new segment of old rows and, behind them, new pictures; it counts when the manifest names it."""
    snapshot, name = self.snapshot, f'{self.snapshot.manifest.next_name:06d}'
    folder = self.folder / SEGMENTS / name
    shutil.rmtree(folder, ignore_errors=True)  # of a stop
    folder.mkdir(parents=True)
    located = [snapshot.locate(int(row)) for row in rows]
    ids = [*(reader.ids[row] for reader, row in located), *ids]
    lines = [*(reader.line(row) for reader, row in located), *lines]
    offsets = io.BytesIO()
    np.save(offsets, np.cumsum([0, *map(len, lines)], dtype=np.int64))
    contents = {
      VECTORS: self._vector_parts(rows, vectors),
      IDS: [''.join(f'{each}\n' for each in ids).encode()],
      ITEMS: [b''.join(lines)],
      OFFSETS: [offsets.getvalue()],
    }
    stamps = {file: write_file(folder / file, parts) for file, parts in contents.items()}
    for each in (folder, folder.parent, self.folder):
      sync_folder(each)
    return Segment(name, len(ids), stamps)

  def _vector_parts(self, rows: Int[np.ndarray, ' o'], vectors: Float[np.ndarray, 'n d']) -> Iterator[bytes]:
    """The file of the embeddings of old rows and new ones, part by part."""
    header = io.BytesIO()
    shape = (len(rows) + len(vectors), self.snapshot.manifest.size)
    about = {'descr': vectors.dtype.str, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(header, about)
    yield header.getvalue()
    for start in range(0, len(rows), _CHUNK):
      yield self.snapshot.vectors(rows[start : start + _CHUNK]).astype(vectors.dtype).data
    if len(vectors):
      yield np.ascontiguousarray(vectors).data

  def _commit(self, manifest: Manifest, is_there: Bool[np.ndarray, ' n']) -> None:
    """The new state takes the place of the old one."""
    version, gone, deleted = manifest.version + 1, np.flatnonzero(~is_there), None
    if len(gone):
      content, name = io.BytesIO(), f'deleted_{version:06d}.npy'
      np.save(content, gone)
      deleted = Deleted(name, len(gone), write_file(self.folder / name, [content.getvalue()]))
      sync_folder(self.folder)
    manifest = dataclasses.replace(manifest, version=version, deleted=deleted)
    replace_file(self.folder / MANIFEST, manifest.to_json())
    self.snapshot = open_snapshot(self.folder)
    self._remove_garbage()

  def _remove_garbage(self) -> None:
    """What no state names any more. Readers that have opened it keep it; those about to look for the newer state."""
    manifest = self.snapshot.manifest
    names = {segment.name for segment in manifest.segments}
    for path in (self.folder / SEGMENTS).glob('*'):
      if path.name not in names:
        shutil.rmtree(path)
    for path in [*self.folder.glob('deleted_*.npy'), *self.folder.glob(f'.{MANIFEST}')]:
      if manifest.deleted is None or path.name != manifest.deleted.name:
        path.unlink()


@contextlib.contextmanager
def open_writer(folder: pathlib.Path) -> Iterator[IndexWriter]:
  """The writer of an index that is there; nobody else can write meanwhile.

  Raises:
    UserError: There is none, it is damaged, or somebody else writes.
  """
  open_snapshot(folder)  # nothing is made where there is no index
  with locked(folder):
    writer = IndexWriter(folder, open_snapshot(folder))
    yield writer
    writer.tidy()


def create_index(folder: pathlib.Path, encoder: dict, pictures: dict | None, size: int, dtype: str) -> None:
  """Makes an empty index, unless there is one.

  Args:
    folder: A new or an empty folder, or an index.
    encoder, pictures, size, dtype: Of its `Manifest`.

  Raises:
    UserError: Something else is in the folder.
  """
  if dtype not in DTYPES:
    raise UserError(f'{folder}: embeddings in {dtype!r}, expected {" or ".join(DTYPES)}')
  if (folder / MANIFEST).is_file():
    return
  # What a stop before the first manifest may have left is ours.
  if folder.exists() and (not folder.is_dir() or any(p.name not in (LOCK, f'.{MANIFEST}') for p in folder.iterdir())):
    raise UserError(f'{folder}: exists already and is no index; expected is an index, or a new or an empty folder')
  folder.mkdir(parents=True, exist_ok=True)
  with locked(folder):
    if not (folder / MANIFEST).is_file():
      manifest = Manifest(secrets.token_hex(8), encoder, pictures, size, dtype)
      replace_file(folder / MANIFEST, manifest.to_json())
      sync_folder(folder.resolve().parent)


def num_merged(rows: Sequence[int], new: int) -> int:
  """How many of the last segments are written again, as one with the new rows.

  `FANOUT` of about the same size become one, and so on: every row is written about log_FANOUT(n) times, and there are
  fewer than `FANOUT` segments of each size.

  Args:
    rows: Of the segments.
    new: Rows.
  """
  merged = 0
  while True:
    before = rows[: len(rows) - merged]
    alike = next((i for i, size in enumerate(reversed(before)) if size > new), len(before))
    if alike < FANOUT - 1:
      return merged
    merged += alike
    new += sum(before[len(before) - alike :])


def _check(items: Sequence[Item], embeddings: np.ndarray, size: int, folder: pathlib.Path) -> None:
  """Raises UserError where something could not be found again."""
  if embeddings.shape != (len(items), size):
    raise UserError(f'{folder}: embeddings {embeddings.shape}, expected {(len(items), size)}')
  for name, times in Counter(item.id for item in items).items():
    if not name or '\n' in name:
      raise UserError(f'{folder}: {name!r} cannot be the id of a picture, expected one line of text')
    if times > 1:
      raise UserError(f'{folder}: picture {name!r} comes {times} times')
  norms = np.linalg.norm(np.asarray(embeddings, np.float32), axis=1)
  wrong = np.flatnonzero(~(np.abs(norms - 1) < 0.01))  # NaN is, too
  if len(wrong):
    raise UserError(f'{folder}: the embedding of {items[wrong[0]].id!r} has length {norms[wrong[0]]}, expected 1')


def _line(item: Item, sources: list[Place], index: pathlib.Path) -> bytes:
  """The item for `items.jsonl`; its source joins `sources`."""
  number = None
  if item.source is not None:
    place = Place.of(item.source, index)
    if place not in sources:
      sources.append(place)
    number = sources.index(place)
  content = dict(id=item.id, captions=item.captions, picture=item.picture, source=number, fingerprint=item.fingerprint)
  return json.dumps(content, ensure_ascii=False).encode() + b'\n'
