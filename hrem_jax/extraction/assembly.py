"""From the outcomes of all pictures to the splits that are written."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hrem_jax.data.precomputed import GALLERY
from hrem_jax.errors import UserError
from hrem_jax.extraction.identifiers import picture_ids
from hrem_jax.extraction.lookalikes import look_alike
from hrem_jax.extraction.records import Record, Source, clean_caption
from hrem_jax.extraction.splits import SplitRule, assign_splits, straddling
from hrem_jax.extraction.writing import SplitPictures

_ORDER = ('train', 'dev', 'test')  # then the user's own, and the gallery last


@dataclasses.dataclass(frozen=True)
class Assembly:
  """What there is to write."""

  splits: list[SplitPictures]
  skipped: list[tuple[str, str]]  # name and reason
  num_look_alikes: int  # pictures that look like an earlier one
  notes: list[str]


def assemble(source: Source, outcomes: Sequence[dict], rule: SplitRule) -> Assembly:
  """Divides the pictures that could be read.

  Args:
    source: With one record per outcome.
    outcomes: Of `PictureReader`.
    rule: For the pictures of which the source does not name the split.

  Raises:
    UserError: None could be read, or there are too few.
  """
  pairs = list(zip(source.records, outcomes, strict=True))
  skipped = [(_shown(record), outcome['problem']) for record, outcome in pairs if 'problem' in outcome]
  if len(skipped) == len(pairs):
    name, reason = skipped[0]
    raise UserError(f'{source.path}: none of its {len(pairs)} pictures can be read; the first, {name}: {reason}')
  rows = np.array([row for row, (_, outcome) in enumerate(pairs) if 'problem' not in outcome])
  records = [source.records[row] for row in rows]
  signatures = np.stack([np.frombuffer(bytes.fromhex(outcomes[row]['signature']), np.uint8) for row in rows])
  group = look_alike(signatures)
  splits = assign_splits(
    [record.split for record in records],
    [bool(record.captions) for record in records],
    group,
    [outcomes[row]['sha256'] for row in rows],
    rule,
  )
  ids = picture_ids([record.name for record in source.records])
  return Assembly(
    [_pictures(name, splits, source, rows, ids, outcomes) for name in _in_order(splits)],
    skipped,
    len(rows) - len(np.unique(group)),
    _notes(records, splits, straddling(splits, group)),
  )


def _shown(record: Record) -> str:
  """Its name on one line, also where it holds line breaks or bytes that are not UTF-8."""
  return clean_caption(record.name)


def _in_order(splits: Sequence[str]) -> list[str]:
  found = set(splits)
  own = sorted(found - {*_ORDER, GALLERY})
  return [name for name in (*_ORDER, *own, GALLERY) if name in found]


def _pictures(
  name: str, splits: Sequence[str], source: Source, rows: np.ndarray, ids: Sequence[str], outcomes: Sequence[dict]
) -> SplitPictures:
  mine = rows[[split == name for split in splits]]
  return SplitPictures(
    name,
    mine,
    [ids[row] for row in mine],
    [source.records[row].captions for row in mine],
    [tuple(outcomes[row]['size']) for row in mine],
  )


def _notes(records: Sequence[Record], splits: Sequence[str], groups: Sequence[Sequence[int]]) -> list[str]:
  notes = []
  if groups:
    shown = ' and '.join(f'{_shown(records[index])} ({splits[index]})' for index in groups[0][:3])
    notes.append(
      f'{len(groups)} group(s) of pictures that look alike lie in several of the splits that the source gives, such as '
      f'{shown}: figures on them are too good'
    )
  missing = [name for name in _ORDER if name not in splits]
  if missing and set(splits) != {GALLERY}:
    notes.append(f'no pictures for {" and ".join(missing)}: training wants train, dev and test')
  return notes
