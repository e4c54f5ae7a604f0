"""`manifest.json`: which files make up the index. Replacing it is what changes an index."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from hrem_jax.errors import UserError, one_line
from hrem_jax.files import read_json_object
from hrem_jax.search.storage import Stamp

MANIFEST, FORMAT = 'manifest.json', 1
DTYPES = ('float32', 'float16')


@dataclasses.dataclass(frozen=True)
class Place:
  """A folder elsewhere, found again where it is or, moved together with the index, where it was from there."""

  path: str  # absolute
  from_index: str  # relative

  @classmethod
  def of(cls, folder: pathlib.Path, index: pathlib.Path) -> 'Place':
    folder = folder.expanduser().resolve()
    return cls(str(folder), os.path.relpath(folder, index.resolve()))

  def find(self, index: pathlib.Path) -> pathlib.Path:
    """The folder, where it was last known if it is nowhere."""
    absolute, beside = pathlib.Path(self.path), index / self.from_index
    return beside if beside.is_dir() and not absolute.is_dir() else absolute


@dataclasses.dataclass(frozen=True)
class Segment:
  """A folder with some pictures, which never changes."""

  name: str
  rows: int
  files: dict[str, Stamp]


@dataclasses.dataclass(frozen=True)
class Deleted:
  """The file with the deleted rows, counted over all segments."""

  name: str
  rows: int
  stamp: Stamp


@dataclasses.dataclass(frozen=True)
class Manifest:
  """One state of an index.

  Attributes:
    id: Of the index; a new one in the same folder has another.
    version: Greater by one with every change.
    encoder: What made the embeddings: its `identity` and its `place` (see `hrem_jax.search.encoders`).
    pictures: Provenance of the features, `encoder` and `features`; None where nothing is known.
    picture_encoder: The folder of that encoder, if it has one and it was told.
    size: Of an embedding.
    dtype: `float32` or `float16`, on disk.
    sources: Data sets that pictures came from.
    segments: In order.
    deleted: None where no row of them is.
    next_name: Number of the next segment; none is used twice, so no reader finds another one under a name.
  """

  id: str
  encoder: dict[str, Any]
  pictures: dict[str, Any] | None
  size: int
  dtype: str
  picture_encoder: Place | None = None
  version: int = 0
  sources: tuple[Place, ...] = ()
  segments: tuple[Segment, ...] = ()
  deleted: Deleted | None = None
  next_name: int = 1

  @property
  def rows(self) -> int:
    """Deleted ones, too."""
    return sum(segment.rows for segment in self.segments)

  def to_json(self) -> bytes:
    return (json.dumps({'format': FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False) + '\n').encode()


def read_manifest(index: pathlib.Path) -> Manifest:
  """The state of an index.

  Raises:
    UserError: There is no index, or it is damaged or of a newer program.
  """
  path = index / MANIFEST
  if not path.is_file():
    raise UserError(f'{index}: no index there; `python -m hrem_jax encode` makes one')
  content = read_json_object(path)
  if content.pop('format', None) != FORMAT:
    raise UserError(f'{path}: not the manifest of an index in format {FORMAT}')
  try:
    manifest = Manifest(**content)
    deleted, picture_encoder = manifest.deleted, manifest.picture_encoder
    manifest = dataclasses.replace(
      manifest,
      picture_encoder=picture_encoder and Place(**picture_encoder),
      sources=tuple(Place(**each) for each in manifest.sources),
      segments=tuple(_segment(each) for each in manifest.segments),
      deleted=deleted and Deleted(**{**deleted, 'stamp': Stamp(**deleted['stamp'])}),
    )
    Place(**manifest.encoder['place'])
    if manifest.dtype not in DTYPES or manifest.size < 1 or not isinstance(manifest.encoder['identity'], dict):
      raise ValueError(f'dtype {manifest.dtype!r}, size {manifest.size!r}')
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f'{path}: damaged: {type(error).__name__}: {one_line(error)}') from error
  return manifest


def _segment(content: dict) -> Segment:
  return Segment(content['name'], content['rows'], {name: Stamp(**each) for name, each in content['files'].items()})
