"""Ids: unique on every file system, safe as file names, readable."""

import string

import hypothesis
import pytest
from hypothesis import strategies

from hrem_jax.extraction.identifiers import MAX_BYTES, picture_ids, safe_name

NAMES = strategies.lists(
  strategies.text(strategies.sampled_from(string.ascii_letters[:4] + 'É猫 ./-_\\:\0\n℀'), min_size=1, max_size=8)
  | strategies.text(min_size=1, max_size=60),
  max_size=12,
  unique=True,
)


@hypothesis.given(NAMES)
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_ids_are_unique_and_can_be_file_names(names):
  ids = picture_ids(names)
  assert len({each.casefold() for each in ids}) == len(ids) == len(names)
  for each in ids:
    assert each
    assert not set(each) & set('/\\:*?"<>|\0\n\r\t ')
    assert each[0] not in '.-'
    assert len(each.encode()) <= MAX_BYTES + 8
    assert each.split() == [each]  # a line of a file, as it stands
  assert picture_ids(names) == ids


@pytest.mark.parametrize(
  ('names', 'ids'),
  [
    (['a.jpg', 'sub/b.c.png'], ['a', 'b.c']),
    (['dogs/1.jpg', 'cats/1.jpg', '2.jpg'], ['dogs_1', 'cats_1', '2']),
    (['x.jpg', 'x.png'], ['x', 'x-2']),
    (['A.jpg', 'a.png', 'a-2.png'], ['A', 'a-3', 'a-2']),
    (['my holiday (1).jpg', 'Ünï 猫.jpg'], ['my_holiday_1_', 'Ünï_猫']),
    (['/abs/x.jpg', 'x.jpg'], ['abs_x', 'x']),
    (['../x.jpg', '.jpg', '…'], ['x', 'jpg', 'picture']),
    (['con.jpg', 'NUL'], ['_con', '_NUL']),
  ],
)
def test_ids_say_what_the_files_were_called(names, ids):
  assert picture_ids(names) == ids


def test_long_names_stay_different():
  one, other = safe_name('猫' * 90 + 'a'), safe_name('猫' * 90 + 'b')
  assert one != other
  assert max(len(one.encode()), len(other.encode())) <= MAX_BYTES
