"""What a data set's features were made of, so that nothing else is taken for the same."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from hrem_jax.errors import UserError, one_line
from hrem_jax.files import to_json, write_text

PROVENANCE = 'provenance.json'
# What decides whether features of two data sets can be compared: not which pictures there are.
FEATURE_KEYS = ('encoder', 'features')


def read_provenance(folder: pathlib.Path) -> dict | None:
  """The object in `provenance.json` of a folder; None where there is no such file.

  Raises:
    UserError: It is not a JSON object.
  """
  path = folder / PROVENANCE
  if not path.is_file():
    return None
  try:
    content = json.loads(path.read_text('utf-8'))
  except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
    raise UserError(f'{path}: not JSON: {one_line(error)}') from error
  if not isinstance(content, dict):
    raise UserError(f'{path}: {type(content).__name__}, expected an object')
  return content


def write_provenance(folder: pathlib.Path, provenance: dict) -> None:
  write_text(folder / PROVENANCE, to_json(provenance))


def differences(old: dict, new: dict, keys: Sequence[str] | None = None) -> list[str]:
  """`key is NEW, was OLD` for every value that differs, with dotted keys, sorted.

  Args:
    old, new: JSON-able objects.
    keys: The only ones at the top that are compared; all if None.
  """
  ours, theirs = (dict(_leaves({k: v for k, v in each.items() if keys is None or k in keys})) for each in (old, new))
  return [
    f'{key} is {_shown(theirs, key)}, was {_shown(ours, key)}'
    for key in sorted(ours.keys() | theirs.keys())
    if key not in ours or key not in theirs or ours[key] != theirs[key]
  ]


def check_same_data(workdir: pathlib.Path, folder: pathlib.Path) -> dict | None:
  """The provenance of a data set that a run may be trained on; it is not written.

  Args:
    workdir: Of the run; holds the provenance of its data from the first start on.
    folder: The data set.

  Raises:
    UserError: The run was started on another data set.
  """
  started, found = read_provenance(workdir), read_provenance(folder)
  if started is not None:
    _refuse(f'{workdir}: was started on other data than {folder}', differences(started, found or {}))
  return found


def check_same_features(expected: dict | None, folder: pathlib.Path, *, whose: str) -> None:
  """Raises UserError where the features of a data set are not of the encoder that `expected` names.

  Args:
    expected: A provenance; where it or that of `folder` says nothing of an encoder, nothing is known and all is well.
    folder: The data set.
    whose: Who expects it, for the message.
  """
  found = read_provenance(folder)
  if expected and found and all('encoder' in each for each in (expected, found)):
    _refuse(f'{folder / PROVENANCE}: other features than {whose}', differences(expected, found, FEATURE_KEYS))


def _refuse(what: str, changed: list[str]) -> None:
  if changed:
    more = f' and {len(changed) - 3} more' if len(changed) > 3 else ''
    raise UserError(f'{what} ({"; ".join(changed[:3])}{more}); take the old data, or begin anew in another folder')


def _leaves(content: dict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key, value in content.items():
    if isinstance(value, dict):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _shown(leaves: dict[str, Any], key: str) -> str:
  return f'{json.dumps(leaves[key], ensure_ascii=False)[:60]}' if key in leaves else 'not there'
