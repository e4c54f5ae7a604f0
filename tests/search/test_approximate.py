"""Graphs of libraries: what they find, when they are made anew, and what came or went since."""

import json

import numpy as np
import pytest
from small_index import ENCODER, unit_vectors

from hrem_jax.errors import UserError
from hrem_jax.search import exact
from hrem_jax.search.approximate import open_approximate
from hrem_jax.search.recall import recall_of
from hrem_jax.search.snapshot import open_snapshot
from hrem_jax.search.writer import Item, create_index, open_writer

SIZE, COUNT = 16, 600
BACKENDS = ['faiss', 'usearch']


@pytest.fixture(params=BACKENDS)
def backend(request):
  pytest.importorskip(request.param)
  return request.param


def add(folder, names, vectors):
  with open_writer(folder) as writer:
    writer.add([Item(name, (), '') for name in names], vectors)


@pytest.fixture
def index(tmp_path):
  folder = tmp_path / 'index'
  create_index(folder, ENCODER, None, SIZE, 'float32')
  add(folder, [f'{number:03d}' for number in range(COUNT)], unit_vectors(0, COUNT, SIZE))
  return folder


def test_recall_and_exact_scores(index, backend):
  snapshot = open_snapshot(index)
  graph, is_new = open_approximate(snapshot, backend)
  assert is_new
  queries = unit_vectors(1, 50, SIZE)
  assert recall_of(snapshot, graph.nearest, queries, 10) > 0.95
  for query in queries[:5]:
    rows, scores = graph.nearest(snapshot, query, 10)
    expected, best = exact.nearest(snapshot, query, COUNT)
    where = [int(np.flatnonzero(expected == row)[0]) for row in rows]
    assert where == sorted(where)
    np.testing.assert_array_equal(scores, best[where])
  assert len(graph.nearest(snapshot, queries[0], 2 * COUNT)[0]) > 0.9 * COUNT


def test_what_came_since_is_found_and_what_went_is_not(index, backend):
  open_approximate(open_snapshot(index), backend)
  query = unit_vectors(1, 1, SIZE)[0]
  gone = exact.nearest(open_snapshot(index), query, 8)[0]
  add(index, ['new'], query[None])
  with open_writer(index) as writer:
    writer.delete([f'{row:03d}' for row in gone[:7]])
  snapshot = open_snapshot(index)
  graph, is_new = open_approximate(snapshot, backend)
  assert not is_new
  rows, scores = graph.nearest(snapshot, query, 2)
  assert [snapshot.item(row)['id'] for row in rows] == ['new', f'{gone[7]:03d}']
  assert scores[0] == pytest.approx(1)


def test_made_anew_when_much_has_changed(index, backend):
  open_approximate(open_snapshot(index), backend)
  assert not open_approximate(open_snapshot(index), backend)[1]
  add(index, [f'new {number}' for number in range(100)], unit_vectors(2, 100, SIZE))
  snapshot = open_snapshot(index)
  assert open_approximate(snapshot, backend)[1]
  assert len(list((index / 'approximate').iterdir())) == 2  # no old one is left
  with open_writer(index) as writer:
    writer.delete(writer.snapshot.ids[:200])  # and all is written anew
  assert open_approximate(open_snapshot(index), backend)[1]


def cut(graph, about):
  graph.write_bytes(graph.read_bytes()[:-1])


def other_index(graph, about):
  about.write_text(json.dumps(json.loads(about.read_text()) | {'index': 'of another'}))


@pytest.mark.parametrize(
  'damage',
  [cut, other_index, lambda graph, about: graph.unlink(), lambda graph, about: about.write_text('{')],
  ids=['cut', 'other index', 'missing', 'no JSON'],
)
def test_a_damaged_graph_is_made_anew(index, backend, damage):
  snapshot = open_snapshot(index)
  open_approximate(snapshot, backend)
  (graph,) = (index / 'approximate').glob('*.graph')
  damage(graph, index / 'approximate' / f'{backend}.json')
  assert open_approximate(snapshot, backend)[1]
  assert not open_approximate(snapshot, backend)[1]


def test_of_nothing(index, backend):
  with open_writer(index) as writer:
    writer.delete(writer.snapshot.ids)
  snapshot = open_snapshot(index)
  graph, _ = open_approximate(snapshot, backend)
  assert len(graph.nearest(snapshot, unit_vectors(1, 1, SIZE)[0], 3)[0]) == 0
  add(index, ['new'], unit_vectors(1, 1, SIZE))
  assert len(graph.nearest(open_snapshot(index), unit_vectors(1, 1, SIZE)[0], 3)[0]) == 1


def test_recall_counts_what_is_missing(index):
  snapshot, queries = open_snapshot(index), unit_vectors(1, 5, SIZE)

  def half(snapshot, query, count):
    rows, scores = exact.nearest(snapshot, query, count)
    return rows[: count // 2], scores[: count // 2]

  assert recall_of(snapshot, exact.nearest, queries, 10) == 1
  assert recall_of(snapshot, half, queries, 10) == 0.5
  assert recall_of(snapshot, half, snapshot.vectors(np.arange(5)), 9, skipped=1) == pytest.approx(4 / 9)


def test_libraries_that_are_not_there(index, monkeypatch):
  with pytest.raises(UserError, match="--backend 'annoy': unknown, expected one of exact, faiss, usearch"):
    open_approximate(open_snapshot(index), 'annoy')
  monkeypatch.setitem(__import__('sys').modules, 'faiss', None)
  with pytest.raises(UserError, match=r"--backend faiss: not installed: pip install 'hrem_jax\[search\]'"):
    open_approximate(open_snapshot(index), 'faiss')
