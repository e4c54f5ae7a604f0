"""A source of pictures through an encoder to `NAME_precomp`: everything that the command `extract` does."""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import version

import jax
from tqdm import tqdm

import hrem_jax
from hrem_jax.data.precomputed import SUFFIX
from hrem_jax.data.provenance import differences, read_provenance, write_provenance
from hrem_jax.errors import UserError
from hrem_jax.extraction import workshop as workshops
from hrem_jax.extraction.assembly import assemble
from hrem_jax.extraction.encoding import PictureReader, Sizes, encode_missing, measure
from hrem_jax.extraction.identifiers import picture_ids
from hrem_jax.extraction.picture_encoders import PictureEncoder
from hrem_jax.extraction.records import Record, Source
from hrem_jax.extraction.splits import SplitRule
from hrem_jax.extraction.workshop import Workshop, explaining
from hrem_jax.extraction.writing import write_lines, write_split
from hrem_jax.paths import local_path

FORMAT = 1  # raise it whenever the same settings would give other bytes
CHUNK = 32  # pictures that are encoded and kept together
SKIPPED, PICTURES = 'skipped.txt', 'pictures'


@dataclasses.dataclass(frozen=True)
class Options:
  """What a person can choose beside source and encoder."""

  regions: int | None = None  # None: the grid, pooled 2 x 2 if it is larger than 8 x 8
  pictures_size: int = 512  # pixels of the longer side of the small pictures; 0 for none
  rule: SplitRule = dataclasses.field(default_factory=SplitRule)

  def __post_init__(self):
    if self.pictures_size < 0:
      raise UserError(f'--pictures-size {self.pictures_size}: expected pixels, or 0 for no small pictures')


@dataclasses.dataclass(frozen=True)
class Extracted:
  """What there is now, for a person."""

  folder: pathlib.Path
  provenance: dict
  notes: list[str]


def extract(
  source: Source,
  encoder: PictureEncoder,
  output: pathlib.Path,
  *,
  name: str = 'own',
  options: Options | None = None,
  progress: bool = True,
) -> Extracted:
  """Makes `OUTPUT/NAME_precomp`, or goes on where an earlier start of the same was stopped.

  The same source, encoder and options give the same bytes, however often it was stopped. Until all is written there is
  only `NAME_precomp.unfinished`, which nothing takes for a data set.

  Args:
    source: Of `read_source`.
    encoder: Of `open_encoder`.
    output: The folder that holds data sets; created if missing.
    name: `config.data.name` of the data set.
    options: The defaults if None.
    progress: Whether to show a progress bar.

  Raises:
    UserError: No picture can be read, there are too few for the splits, other settings than at the first start, the
      folder holds something else, or the disk is full.
  """
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,63}', name):
    raise UserError(f'--name {name!r}: expected letters, digits, _, - and .')
  options, folder = options or Options(), local_path(output) / f'{name}{SUFFIX}'
  sizes = measure(encoder, options.regions, CHUNK)
  settings = json.loads(json.dumps(_settings(source, encoder, sizes, options)))
  unfinished = folder.with_name(folder.name + workshops.SUFFIX)
  with explaining(unfinished):
    provenance = _finished(folder, settings)
    if provenance is not None:
      shutil.rmtree(unfinished, ignore_errors=True)  # a stop came between the last two steps
      return Extracted(folder, provenance, [*source.notes, f'{folder}: was already there, nothing to do'])
    with Workshop(unfinished, settings, sizes.row_bytes()) as workshop:
      _encode(source.records, encoder, sizes, workshop, options, progress)
      provenance, notes = _write(source, encoder, sizes, workshop, options.rule, settings)
      workshop.finish(folder)
  return Extracted(folder, provenance, [*source.notes, *notes])


def _settings(source: Source, encoder: PictureEncoder, sizes: Sizes, options: Options) -> dict:
  """All that decides the bytes, most telling first."""
  return {
    'format': FORMAT,
    'encoder': encoder.provenance,
    'features': {
      'grid': sizes.grid,
      'regions': sizes.pooled,
      'size': sizes.features,
      'type': 'float16',
      'embedding_size': sizes.embedding,
    },
    'source': {
      'kind': source.kind,
      'name': source.path.resolve().name,
      'pictures': len(source.records),
      'captions': sum(len(record.captions) for record in source.records),
      'sha256': source.digest(),
    },
    'splits': {'rule': options.rule.describe(), **dataclasses.asdict(options.rule)},
    'pictures_size': options.pictures_size,
    'made_with': {'hrem_jax': hrem_jax.__version__, 'jax': jax.__version__, 'pillow': version('pillow')},
  }


def _finished(folder: pathlib.Path, settings: dict) -> dict | None:
  """The provenance of the data set that is there, if it is the one that is asked for.

  Raises:
    UserError: Something else is there.
  """
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return None
  found = read_provenance(folder)
  if found is None:
    raise UserError(f'{folder}: holds something that no extraction made: move it away or choose another --name')
  changed = differences(found, settings, [key for key in settings if key != 'made_with'])
  if changed:
    raise UserError(
      f'{folder}: holds another data set ({"; ".join(changed[:4])}): move it away or choose another --name'
    )
  return found


def _encode(
  records: Sequence[Record],
  encoder: PictureEncoder,
  sizes: Sizes,
  workshop: Workshop,
  options: Options,
  progress: bool,
) -> None:
  """Brings the workshop to the last chunk."""
  pictures, num_done = workshop.result / PICTURES, sum(map(len, workshop.outcomes))
  if options.pictures_size:
    pictures.mkdir(exist_ok=True)
  reader = PictureReader(encoder, pictures, options.pictures_size)
  ids = picture_ids([record.name for record in records])
  bar = tqdm(
    total=len(records), initial=num_done, desc=f'pictures through {encoder.name}', unit='picture', disable=not progress
  )
  with bar:
    encode_missing(records, ids, encoder, sizes, workshop, reader, bar.update)


def _write(
  source: Source, encoder: PictureEncoder, sizes: Sizes, workshop: Workshop, rule: SplitRule, settings: dict
) -> tuple[dict, list[str]]:
  """All files of the result; returns its provenance, and what a person should know."""
  outcomes = [outcome for chunk in workshop.outcomes for outcome in chunk]
  assembly = assemble(source, outcomes, rule)
  for split in assembly.splits:
    write_split(workshop, split, sizes, encoder.preprocessing.grid_boxes)
  write_lines(workshop.result / SKIPPED, (f'{name}\t{reason}' for name, reason in assembly.skipped))
  counts = {split.name: {'pictures': len(split.rows), 'captions': split.num_captions} for split in assembly.splits}
  found = {'counts': counts, 'skipped': len(assembly.skipped), 'look_alikes': assembly.num_look_alikes}
  write_provenance(workshop.result, settings | found)
  return settings | found, assembly.notes


def format_table(extracted: Extracted) -> str:
  """What was written, for people."""
  provenance = extracted.provenance
  features, counts = provenance['features'], provenance['counts']
  rows = [
    ('split', 'pictures', 'captions'),
    *((k, f'{v["pictures"]:,}', f'{v["captions"]:,}') for k, v in counts.items()),
  ]
  widths = [max(len(row[column]) for row in rows) for column in range(3)]
  lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
  rows_of_grid, columns = features['regions']
  lines.append(f'{rows_of_grid} x {columns} regions of size {features["size"]} in {features["type"]}')
  if features['embedding_size']:
    lines.append(f'embeddings of size {features["embedding_size"]}')
  if provenance['look_alikes']:
    lines.append(f'{provenance["look_alikes"]:,} pictures look like another one; they are in one split with it')
  if provenance['skipped']:
    lines.append(f'{provenance["skipped"]:,} could not be read: {extracted.folder / SKIPPED}')
  return '\n'.join([f'{extracted.folder}', *lines, *(f'note: {note}' for note in extracted.notes)])
