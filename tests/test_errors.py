"""Messages stay one short line, whatever a file holds."""

import numpy as np
import pytest

from hrem_jax.errors import LONGEST, UserError, shortened, shown


class Broken:
  def __repr__(self):
    raise RuntimeError('no repr')


def deep(levels: int) -> list:
  value = []
  for _ in range(levels):
    value = [value]
  return value


@pytest.mark.parametrize(
  'value',
  [
    'x' * 10**6,
    'two\nlines',
    list(range(100_000)),
    {str(number): number for number in range(1000)},
    10**5000,
    np.zeros((300, 300)),
    b'\0' * 10**5,
    deep(100_000),
    Broken(),
  ],
  ids=lambda value: type(value).__name__,
)
def test_whatever_a_value_is_it_is_shown_in_a_short_line(value):
  text = shown(value)
  assert 0 < len(text) <= 80
  assert '\n' not in text


@pytest.mark.parametrize(('value', 'text'), [('dog', "'dog'"), (1.5, '1.5'), (None, 'None'), ([1, 2], '[1, 2]')])
def test_short_values_are_shown_whole(value, text):
  assert shown(value) == text


def test_the_middle_of_a_long_text_is_left_out():
  assert shortened('0123456789' * 3, 30) == '0123456789' * 3
  assert shortened('0123456789' * 3, 20) == '0123456789 ... 56789'


def test_no_message_is_long():
  """Its beginning, which has the file's name, and its end, which has what was expected, stay."""
  message = str(UserError(f'a.json: {"x" * 10**6}, expected a word'))
  assert len(message) == LONGEST
  assert message.startswith('a.json: x')
  assert message.endswith('x, expected a word')
