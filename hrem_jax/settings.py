"""One setting: its default, what it may be, and what it is for, in one place. A section is a dictionary of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hrem_jax.errors import UserError, shown


class Check(NamedTuple):
  """What a value may be."""

  is_fine: Callable[[Any], bool]
  expected: str  # in words, for the message


ANY = Check(lambda value: True, 'anything')
POSITIVE = Check(lambda value: value > 0, 'positive')
NOT_NEGATIVE = Check(lambda value: value >= 0, '0 or more')
SHARE = Check(lambda value: 0 <= value <= 1, 'between 0 and 1')
BELOW_ONE = Check(lambda value: 0 <= value < 1, 'a probability below 1')


def one_of(*values) -> Check:
  *some, last = map(repr, values)
  return Check(lambda value: value in values, f'{", ".join(some)} or {last}' if some else last)


class Setting(NamedTuple):
  """What a configuration may say under one key."""

  default: Any
  words: str
  check: Check = ANY


Settings = Mapping[str, 'Setting | Settings']


def defaults(settings: Settings) -> dict[str, Any]:
  """The section that `settings` describe, as a configuration holds it."""
  return {key: value.default if isinstance(value, Setting) else defaults(value) for key, value in settings.items()}


def checks(settings: Settings, prefix: str) -> dict[str, Check]:
  """The checks by dotted key below `prefix`."""
  found = {}
  for key, value in settings.items():
    is_one = isinstance(value, Setting)
    found |= {f'{prefix}.{key}': value.check} if is_one else checks(value, f'{prefix}.{key}')
  return found


def check_value(key: str, value: Any, kind: type, check: Check) -> None:
  """Raises UserError, naming the key, the value and what was expected, where a setting cannot work."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    raise UserError(f'config.{key} is {shown(value)}, expected a finite {kind.__name__}')
  try:
    works = check.is_fine(value)
  except TypeError:  # a word in a tuple of numbers
    works = False
  if not works:
    raise UserError(f'config.{key} is {shown(value)}, expected {check.expected}')
