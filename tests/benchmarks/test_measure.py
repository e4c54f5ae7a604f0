"""Figures are judged against their bounds, and the line of JSON says so."""

import json
import pathlib

import pytest

from benchmarks.measure import Figure, in_turns, make_batch, ratio, show
from hrem_jax.methods.registry import default_config

LATEST = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'latest.json'


def test_a_table_and_one_line_of_json(capsys):
  figures = [
    Figure('slow', 2.0, 'x', at_most=1.5),
    Figure('fast', 2.0, 'x', at_least=1.5),
    Figure('edge', 1.5, 'x', at_most=1.5),
    Figure('told', 3.14159265, 's'),
  ]
  show('title', iter(figures))
  *_, table, line = capsys.readouterr().out.splitlines()
  assert 'told' in table
  assert json.loads(line) == [
    {'name': 'title, slow', 'figure': 2.0, 'target': 'at most 1.5 x', 'met': False},
    {'name': 'title, fast', 'figure': 2.0, 'target': 'at least 1.5 x', 'met': True},
    {'name': 'title, edge', 'figure': 1.5, 'target': 'at most 1.5 x', 'met': True},
    {'name': 'title, told', 'figure': 3.142, 'target': None, 'met': None},
  ]


def test_functions_take_turns_after_one_call_each():
  calls = []
  times = in_turns({name: lambda name=name: calls.append(name) for name in 'ab'}, rounds=2)
  assert calls == ['a', 'b'] * 3
  assert {name: len(values) for name, values in times.items()} == {'a': 2, 'b': 2}
  assert ratio({'a': [2.0, 9.0, 4.0], 'b': [1.0, 3.0, 4.0]}, 'a', 'b') == 2.0


@pytest.mark.parametrize('num_groups', [1, 4])
def test_a_batch_of_the_papers_size(num_groups):
  batch = make_batch(default_config(), 16, num_groups=num_groups)
  assert batch.images.regions.shape == (16, 36, 2048)
  assert batch.texts.packing.index.shape == (num_groups, 16 // num_groups, 40)
  assert batch.texts.mask.sum() == batch.texts.packing.mask.sum()
  assert batch.texts.packing.mask.sum(axis=-1).max() == 40


@pytest.mark.skipif(not LATEST.is_file(), reason='no figures yet: make bench')
def test_the_figures_that_are_kept_are_whole():
  for figure in json.loads(LATEST.read_text()):
    assert set(figure) == {'name', 'figure', 'target', 'met'}
    assert (figure['target'] is None) == (figure['met'] is None)
