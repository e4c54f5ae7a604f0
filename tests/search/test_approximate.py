"""Graphs of libraries: what they find, when they are made anew, and what came or went since."""

import shutil

import pytest
from small_index import about, found, unit_vectors

from hrem_jax.errors import UserError
from hrem_jax.search import approximate, blocks
from hrem_jax.search.index import Item, create_index, open_index
from hrem_jax.search.recall import recall_of
from hrem_jax.search.searcher import check_backend

SIZE, COUNT = 16, 600
BACKENDS = ['faiss', 'usearch']


@pytest.fixture(params=BACKENDS)
def backend(request):
  pytest.importorskip(request.param)
  return request.param


def add(path, names, vectors):
  with open_index(path) as index:
    index.add([Item(name, (), '') for name in names], vectors[:, None])


@pytest.fixture
def path(tmp_path, monkeypatch):
  monkeypatch.setattr(blocks, 'ROOM', 50 * SIZE * 4)
  with create_index(tmp_path / 'index', about(size=SIZE)):
    add(tmp_path / 'index', [f'{number:03d}' for number in range(COUNT)], unit_vectors(0, COUNT, SIZE))
  return tmp_path / 'index'


def test_recall_and_exact_scores(path, backend):
  index = open_index(path)
  assert index.prepare(backend) > 0
  queries = unit_vectors(1, 50, SIZE)
  assert recall_of(index, backend, queries[:, None], 10) > 0.95
  for query in queries[:5]:
    expected = {each.item.id: each.score for each in index.nearest(query[None], COUNT)}
    hits = index.nearest(query[None], 10, backend=backend)
    assert [hit.item.id for hit in hits] == [name for name in expected if name in {hit.item.id for hit in hits}]
    assert [hit.score for hit in hits] == [expected[hit.item.id] for hit in hits]
  assert len(index.nearest(queries[:1], 2 * COUNT, backend=backend)) > 0.9 * COUNT


def test_several_embeddings_of_a_picture(tmp_path, backend):
  vectors = unit_vectors(0, 300, SIZE).reshape(100, 3, SIZE)
  with create_index(tmp_path / 'index', about(size=SIZE, views=3)) as index:
    index.add([Item(f'{number:02d}', (), '') for number in range(100)], vectors)
    for queries in unit_vectors(1, 10, SIZE).reshape(5, 2, SIZE):
      assert index.nearest(queries, 5, backend=backend) == index.nearest(queries, 5)


def test_what_came_since_is_found_and_what_went_is_not(path, backend):
  index, query = open_index(path), unit_vectors(1, 1, SIZE)[0]
  index.prepare(backend)
  add(path, ['new'], query[None])
  far = found(index, -query, 1)[0]
  add(path, [far], query[None])  # replaced
  assert found(index, query, 3, backend=backend) == found(index, query, 3)
  assert found(index, query, 2) == sorted([far, 'new'])
  gone = found(index, query, 8)[:7]
  with open_index(path) as writer:
    writer.delete(gone)
  assert found(index, query, 2, backend=backend) == found(index, query, 2)
  assert not set(found(index, query, COUNT, backend=backend)) & set(gone)


def test_made_anew_when_much_has_changed(path, backend):
  assert open_index(path).prepare(backend) > 0
  assert open_index(path).prepare(backend) is None
  add(path, ['one more'], unit_vectors(2, 1, SIZE))
  assert open_index(path).prepare(backend) is None
  add(path, [f'new {number}' for number in range(100)], unit_vectors(2, 100, SIZE))
  assert open_index(path).prepare(backend) > 0
  assert [each.name for each in (path.parent / 'index.derived').iterdir()] == [f'{backend}.graph']


def test_what_was_forgotten_is_in_no_graph(path, backend, monkeypatch):
  index = open_index(path)
  index.prepare(backend)
  with open_index(path) as writer:
    writer.delete(['000'])
  assert not (path.parent / 'index.derived').exists()
  assert found(index, unit_vectors(0, 1, SIZE)[0], 1, backend=backend) != ['000']
  real = approximate.build

  def build(*arguments):
    graph = real(*arguments)
    with open_index(path) as writer:  # while it is being made
      writer.delete(['001'])
    return graph

  monkeypatch.setattr(approximate, 'build', build)
  open_index(path).prepare(backend)
  assert not (path.parent / 'index.derived' / f'{backend}.graph').exists()


def test_a_folder_that_cannot_be_written(path, backend):
  (path.parent / 'index.derived').write_text('in the way')
  index = open_index(path)
  assert index.prepare(backend) > 0
  assert found(index, unit_vectors(0, 1, SIZE)[0], 1, backend=backend) == ['000']


def cut(graph):
  graph.write_bytes(graph.read_bytes()[:-1])


def flip(where):
  def breaks(graph):
    content = bytearray(graph.read_bytes())
    content[int(where * len(content))] ^= 4
    graph.write_bytes(content)

  return breaks


def of_another_index(graph):
  folder = graph.parent.parent / 'elsewhere'
  folder.mkdir()
  with create_index(folder / 'index', about(size=SIZE, id='another')):
    add(folder / 'index', [f'{number:03d}' for number in range(COUNT)], unit_vectors(3, COUNT, SIZE))
  open_index(folder / 'index').prepare(graph.stem)
  shutil.copy(folder / 'index.derived' / graph.name, graph)


DAMAGE = {'cut': cut, 'missing': lambda graph: graph.unlink(), 'empty': lambda graph: graph.write_bytes(b'')}
DAMAGE |= {f'flipped at {where}': flip(where) for where in (0, 0.004, 0.1, 0.5, 0.9, 0.9999)}
DAMAGE['of another index'] = of_another_index


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_graph_is_made_anew_before_a_library_sees_it(path, backend, damage):
  open_index(path).prepare(backend)
  DAMAGE[damage](path.parent / 'index.derived' / f'{backend}.graph')
  assert open_index(path).prepare(backend) > 0
  assert open_index(path).prepare(backend) is None


def test_a_graph_that_is_cut_while_it_is_searched(path, backend):
  """No file is mapped: to read beyond its end would end the process."""
  open_index(path).prepare(backend)
  index, query = open_index(path), unit_vectors(0, 1, SIZE)[0]
  index.prepare(backend)
  with (path.parent / 'index.derived' / f'{backend}.graph').open('r+b') as file:
    file.truncate(0)
  assert found(index, query, 9, backend=backend)[0] == '000'


def test_of_nothing(path, backend):
  with open_index(path) as index:
    index.delete(index.ids())
    index.prepare(backend)
    assert found(index, unit_vectors(1, 1, SIZE)[0], 3, backend=backend) == []
    add(path, ['new'], unit_vectors(1, 1, SIZE))
    assert found(index, unit_vectors(1, 1, SIZE)[0], 3, backend=backend) == ['new']


def test_recall_counts_what_is_missing(path):
  index, queries = open_index(path), unit_vectors(1, 5, SIZE)[:, None]

  class Half:
    def nearest(self, queries, count, *, backend):
      hits = index.nearest(queries, count)
      return hits if backend == 'exact' else hits[: count // 2]

  assert recall_of(index, 'exact', queries, 10) == 1
  assert recall_of(Half(), 'half', queries, 10) == 0.5
  assert recall_of(Half(), 'half', [index.vectors(name) for name in index.ids(0, 5)], 9, 1) == pytest.approx(4 / 9)


def test_libraries_that_are_not_there(path, monkeypatch):
  with pytest.raises(UserError, match="--backend 'annoy': unknown here, expected one of exact, faiss, usearch"):
    check_backend(open_index(path), 'annoy')
  monkeypatch.setitem(__import__('sys').modules, 'faiss', None)
  with pytest.raises(UserError, match=r"--backend faiss: not installed: pip install 'hrem_jax\[search\]'"):
    check_backend(open_index(path), 'faiss')
