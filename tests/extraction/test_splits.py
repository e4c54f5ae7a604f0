"""Splits: every picture in one, look-alikes together, sizes near what was asked for, stable."""

import hashlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from hrem_jax.errors import UserError
from hrem_jax.extraction.splits import SplitRule, assign_splits, straddling


def digests(count: int, first: int = 0) -> list[str]:
  return [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(first, first + count)]


def split_all(group, rule, first=0):
  count = len(group)
  return assign_splits([None] * count, [True] * count, np.asarray(group), digests(count, first), rule)


@strategies.composite
def cases(draw):
  count = draw(strategies.integers(1, 60))
  group = draw(strategies.lists(strategies.integers(0, count), min_size=count, max_size=count))
  captions = draw(strategies.lists(strategies.booleans(), min_size=count, max_size=count))
  names = strategies.sampled_from([None, None, None, 'train', 'test', 'mine'])
  given = draw(strategies.lists(names, min_size=count, max_size=count))
  dev, test = draw(strategies.sampled_from([(0.1, 0.1), (0, 0), (0.4, 0.5), (0, 0.3), (0.02, 0.9)]))
  return given, captions, np.array(group), SplitRule(dev, test, draw(strategies.integers(0, 9)))


@hypothesis.given(cases())
@hypothesis.settings(max_examples=400, deadline=None, derandomize=True)
def test_rules_that_hold_for_every_source(case):
  given, captions, group, rule = case
  files = digests(len(given))
  free = [i for i in range(len(given)) if given[i] is None and captions[i]]
  settled = {group[i] for i in range(len(given)) if given[i] and captions[i]}
  num_free_groups = len({group[i] for i in free} - settled)
  needed = 1 + (rule.dev > 0) + (rule.test > 0)
  if 0 < num_free_groups < needed:
    with pytest.raises(
      UserError, match=f'^{num_free_groups} different picture.*expected at least {needed} for train, '
    ):
      assign_splits(given, captions, group, files, rule)
    return
  splits = assign_splits(given, captions, group, files, rule)
  assert len(splits) == len(given)
  for i, split in enumerate(splits):
    assert (split == 'gallery') == (not captions[i])
    assert not (given[i] and captions[i]) or split == given[i]
  its_own = {number for number in group.tolist() if number not in settled}
  for number in its_own:
    assert len({splits[i] for i in free if group[i] == number}) <= 1
  crossing = {tuple(indices) for indices in straddling(splits, group)}
  assert all(any(given[i] for i in indices) for indices in crossing)
  if num_free_groups and not settled:
    assert {splits[i] for i in free} == {'train', *(['dev'] if rule.dev else []), *(['test'] if rule.test else [])}


@pytest.mark.parametrize('count', [10, 97, 2000])
def test_shares_are_near_what_was_asked_for(count):
  for seed in range(5):
    splits = split_all(np.arange(count), SplitRule(0.1, 0.2, seed))
    for name, share in (('dev', 0.1), ('test', 0.2)):
      assert max(1, count * share // 2) <= splits.count(name) <= np.ceil(2 * share * count)
    assert splits.count('train') > count * 0.45
  if count == 2000:
    assert abs(splits.count('dev') - 200) < 60
    assert abs(splits.count('test') - 400) < 80


def test_a_seed_gives_the_same_and_another_something_else():
  one, again, other = (split_all(np.arange(101), SplitRule(seed=seed)) for seed in (3, 3, 4))
  assert one == again
  assert one != other


def test_order_does_not_matter():
  order = np.random.default_rng(0).permutation(67)
  files, group = np.array(digests(67)), np.arange(67) // 2
  splits = assign_splits([None] * 67, [True] * 67, group, files.tolist(), SplitRule())
  shuffled = assign_splits([None] * 67, [True] * 67, group[order], files[order].tolist(), SplitRule())
  assert shuffled == [splits[i] for i in order]


def test_pictures_that_are_added_do_not_move_the_others():
  few, many = split_all(np.arange(400), SplitRule()), split_all(np.arange(450), SplitRule())
  assert few == many[:400]


def test_a_film_of_one_scene_is_for_training():
  splits = split_all([0] * 60 + list(range(1, 41)), SplitRule())
  assert splits[:60] == ['train'] * 60
  assert {'dev', 'test'} < set(splits)


def test_three_films_are_three_splits():
  splits = split_all([0] * 30 + [1] * 20 + [2] * 10, SplitRule())
  assert sorted((splits[0], splits[30], splits[50])) == ['dev', 'test', 'train']
  assert all(len(set(splits[a:b])) == 1 for a, b in ((0, 30), (30, 50), (50, 60)))


def test_a_picture_that_looks_like_one_of_a_given_split_follows_it():
  given = ['test', None, None, 'train', 'dev', None]
  splits = assign_splits(given, [True] * 5 + [False], np.array([7, 7, 8, 8, 9, 9]), digests(6), SplitRule())
  assert splits == ['test', 'test', 'train', 'train', 'dev', 'gallery']


@pytest.mark.parametrize(
  ('shares', 'message'),
  [
    ((-0.1, 0.1), r'^--dev -0.1: expected a fraction from 0 to less than 1$'),
    ((0.1, 1.0), r'^--test 1.0: expected a fraction from 0 to less than 1$'),
    ((0.1, float('nan')), r'^--test nan: expected a fraction'),
    ((0.5, 0.5), r'^--dev 0.5 and --test 0.5 leave nothing for training$'),
  ],
)
def test_shares_that_cannot_be(shares, message):
  with pytest.raises(UserError, match=message):
    SplitRule(*shares)
