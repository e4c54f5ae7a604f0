"""Values of a settings file of a Hugging Face folder, each checked where it is taken."""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from hrem_jax.errors import UserError, shown

MOST = 2**21  # of a size: more rows than the largest vocabulary, and no product of two that overflows


def is_finite(value: object) -> bool:
  """Whether a value of a file is a number that float64 holds; True and False are none."""
  return type(value) in (int, float) and abs(value) <= sys.float_info.max


class Settings:
  """A section of a JSON file over the defaults that the published program has for what a file leaves out.

  Args:
    path: The file, for messages.
    content: The section.
    defaults: For keys that it lacks.
    section: Its name, for messages; empty for the whole file.
  """

  def __init__(
    self, path: pathlib.Path, content: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, section: str = ''
  ):
    self.path, self._prefix = path, f'{section}.' if section else ''
    self._content = {**(defaults or {}), **content}

  def get(self, key: str, default: Any = None) -> Any:
    return self._content.get(key, default)

  def integer(self, key: str, *, most: int = MOST) -> int:
    """Raises UserError where the value is no positive integer, or one beyond what any model has: it decides memory."""
    value = self.get(key)
    if type(value) is not int or value < 1:
      raise self.wrong(key, 'a positive integer')
    if value > most:
      raise self.wrong(key, f'at most {most:,}')
    return value

  def number(self, key: str) -> float:
    """Raises UserError where the value is no finite number."""
    value = self.get(key)
    if not is_finite(value):
      raise self.wrong(key, 'a number that is finite')
    return float(value)

  def flag(self, key: str) -> bool:
    """Raises UserError where the value is neither true nor false."""
    value = self.get(key)
    if not isinstance(value, bool):
      raise self.wrong(key, 'true or false')
    return value

  def choice(self, key: str, choices: Mapping[Any, Any]) -> Any:
    """What `choices` has for the value; raises UserError where it is none of them."""
    value = self.get(key)
    if isinstance(value, list | dict) or value not in choices:
      raise self.wrong(key, f'one of {", ".join(map(repr, choices))}')
    return choices[value]

  def require(self, key: str, value: Any) -> None:
    """Raises UserError where it has another value: what is built here knows no other."""
    if self.get(key, value) != value:
      raise self.wrong(key, repr(value))

  def wrong(self, key: str, expected: str) -> UserError:
    found = f'is {shown(self.get(key))}' if key in self._content else 'is not there'
    return UserError(f'{self.path}: {self._prefix}{key} {found}, expected {expected}')
