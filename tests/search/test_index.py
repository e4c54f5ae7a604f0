"""Pictures come, go and are replaced, in any order; what is found is what a dictionary says."""

import os

import numpy as np
import pytest
import small_index
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_index import SIZE, add, assert_same_content, content_of, make_content, make_index, unit_vectors

from hrem_jax.errors import UserError
from hrem_jax.search import writer as writers
from hrem_jax.search.exact import nearest
from hrem_jax.search.snapshot import open_snapshot
from hrem_jax.search.writer import Item, create_index, num_merged, open_writer

POOL = unit_vectors(7, 6)  # few: many pictures have equal embeddings
IDS = [f'picture {number}' for number in range(12)]

additions = st.dictionaries(st.sampled_from(IDS), st.integers(0, len(POOL) - 1), min_size=1, max_size=5)
operations = st.one_of(
  st.tuples(st.just('add'), additions),
  st.tuples(st.just('delete'), st.sets(st.integers(0, 11), min_size=1, max_size=4)),
  st.tuples(st.just('compact'), st.none()),
)


@pytest.fixture
def no_waiting(monkeypatch):
  """For a disk, that is."""
  monkeypatch.setattr(os, 'fsync', lambda file: None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, max_size=12), st.integers(0, 99), st.sampled_from([2, 3]), st.sampled_from([0.25, 2.0]))
def test_a_search_is_that_of_a_dictionary(tmp_path_factory, no_waiting, operations_done, seed, fanout, most_deleted):
  folder, expected = tmp_path_factory.mktemp('index') / 'index', {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(writers, 'FANOUT', fanout)
    patch.setattr(writers, 'MOST_DELETED', most_deleted)
    make_index(folder)
    for number, (kind, what) in enumerate(operations_done):
      with open_writer(folder) as writer:
        if kind == 'add':
          content = {name: (POOL[v], f'{name} at {number}') for name, v in what.items()}
          add(writer, content)
          expected |= content
        elif kind == 'delete':
          names = sorted(expected)
          gone = {names[i] for i in what if i < len(names)}
          writer.delete(sorted(gone))
          expected = {name: each for name, each in expected.items() if name not in gone}
        else:
          writer.compact()
  snapshot = open_snapshot(folder)
  assert not snapshot.problems()
  assert_same_content(content_of(snapshot), expected)
  for query in unit_vectors(seed, 2):
    for count in (1, 4, 100):
      rows, scores = nearest(snapshot, query, count)
      assert [snapshot.item(row)['id'] for row in rows] == small_index.brute_force(expected, query, count)
      assert (np.diff(scores) <= 0).all()
  assert only_named_files(folder)


def only_named_files(folder) -> bool:
  manifest = open_snapshot(folder).manifest
  expected = {'manifest.json', 'lock'} | ({manifest.deleted.name} if manifest.deleted else set())
  expected |= {f'segments/{each.name}/{name}' for each in manifest.segments for name in each.files}
  return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()} == expected


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_equal_embeddings_have_equal_scores_wherever_they_lie(tmp_path, no_waiting, dtype):
  """A matrix product rounds by position; the order of equal pictures is that of their ids all the same."""
  size, count = 67, 300
  vectors = unit_vectors(0, 3, size)[np.random.default_rng(0).integers(0, 3, count)]
  ids = [f'{number:03d}' for number in np.random.default_rng(1).permutation(count)]
  create_index(tmp_path / 'index', small_index.ENCODER, None, size, dtype)
  with open_writer(tmp_path / 'index') as writer:
    for part in np.array_split(np.arange(count), 5):
      writer.add([Item(ids[i], (), '') for i in part], vectors[part])
  snapshot = open_snapshot(tmp_path / 'index')
  rows, scores = nearest(snapshot, unit_vectors(5, 1, size)[0], 40)
  names = [snapshot.item(row)['id'] for row in rows]
  assert names == sorted(names)
  assert len(set(scores)) == 1
  best = vectors[ids.index(names[0])]
  assert names == sorted(name for name, vector in zip(ids, vectors, strict=True) if (vector == best).all())[:40]


def test_half_precision_takes_half_the_room(tmp_path):
  content = make_content(IDS)
  folders = [make_index(tmp_path / dtype, content, dtype=dtype) for dtype in ('float32', 'float16')]
  files = [np.load(folder / 'segments/000001/embeddings.npy', mmap_mode='r') for folder in folders]
  assert [file.dtype for file in files] == [np.float32, np.float16]
  query = unit_vectors(3, 1)[0]
  (_, exact), (_, rounded) = (nearest(open_snapshot(folder), query, 12) for folder in folders)
  np.testing.assert_allclose(exact, rounded, atol=2e-3)


def test_single_pictures_make_few_segments_and_little_work():
  rows, written = [], 0
  for _ in range(1000):
    merged = num_merged(rows, 1)
    rows = [*rows[: len(rows) - merged], sum(rows[len(rows) - merged :]) + 1]
    written += rows[-1]
    assert len(rows) <= (writers.FANOUT - 1) * 4  # sizes of 1, 8, 64 and 512
  assert sum(rows) == 1000
  assert written <= 1000 * 4
  assert num_merged([100, 50, 3], 60) == 0


def test_much_that_is_deleted_is_given_back(tmp_path):
  folder = make_index(tmp_path / 'index', make_content(IDS))
  with open_writer(folder) as writer:
    writer.delete(IDS[:3])
    assert writer.snapshot.manifest.deleted.rows == 3
  assert open_snapshot(folder).manifest.rows == 12  # a quarter
  with open_writer(folder) as writer:
    writer.delete(IDS[3:4])
  manifest = open_snapshot(folder).manifest
  assert (manifest.rows, manifest.deleted) == (8, None)
  with open_writer(folder) as writer:
    writer.delete(IDS[4:])
  assert open_snapshot(folder).manifest.segments == ()
  assert only_named_files(folder)


def test_two_writers_at_once_are_refused(tmp_path):
  folder = make_index(tmp_path / 'index', make_content(IDS))
  with open_writer(folder) as writer:
    with pytest.raises(UserError, match='somebody else is changing this index'), open_writer(folder):
      pass
    writer.delete(IDS[:1])
  with open_writer(folder) as writer:
    assert len(writer.snapshot) == 11


@pytest.mark.parametrize(
  ('ids', 'vectors', 'message'),
  [
    (['a', 'a'], unit_vectors(0, 2), "picture 'a' comes 2 times"),
    (['a', ''], unit_vectors(0, 2), "'' cannot be the id of a picture"),
    (['a', 'b\nc'], unit_vectors(0, 2), r"'b\\nc' cannot be the id"),
    (['a', 'b'], unit_vectors(0, 2) * [[1], [2]], "embedding of 'b' has length 2"),
    (['a', 'b'], unit_vectors(0, 2) * np.nan, "embedding of 'a' has length nan"),
    (['a', 'b'], unit_vectors(0, 2, SIZE + 1), r'embeddings \(2, 6\), expected \(2, 5\)'),
    (['a'], unit_vectors(0, 2), r'embeddings \(2, 5\), expected \(1, 5\)'),
  ],
)
def test_what_cannot_be_added_changes_nothing(tmp_path, ids, vectors, message):
  folder = make_index(tmp_path / 'index', make_content(IDS))
  before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
  with pytest.raises(UserError, match=message), open_writer(folder) as writer:
    writer.add([Item(name, (), '') for name in ids], vectors.astype(np.float32))
  with pytest.raises(UserError, match=r"no picture 'z' and 1 other\(s\)"), open_writer(folder) as writer:
    writer.delete([IDS[0], 'z', 'y'])
  assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before


def test_folders_that_are_no_index(tmp_path):
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'file').touch()
  (tmp_path / 'file').touch()
  for name in ('other', 'file'):
    with pytest.raises(UserError, match=f'{name}: exists already and is no index'):
      make_index(tmp_path / name)
  for name in ('other', 'missing', 'file'):
    with pytest.raises(UserError, match=f'{name}: no index there'), open_writer(tmp_path / name):
      pass
  assert not (tmp_path / 'missing').exists()
  with pytest.raises(UserError, match="embeddings in 'float64', expected float32 or float16"):
    create_index(tmp_path / 'new', small_index.ENCODER, None, SIZE, 'float64')


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def flip(path):
  content = bytearray(path.read_bytes())
  content[-2] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  ('name', 'damage', 'message'),
  [
    ('segments/000001/embeddings.npy', cut, '000001/embeddings.npy: 367 bytes, expected 368: the index is damaged'),
    ('segments/000001/ids.txt', cut, 'ids.txt: .* bytes, expected'),
    ('segments/000001/ids.txt', flip, 'ids.txt: not what was written'),
    ('segments/000001/offsets.npy', flip, 'offsets.npy: not what was written'),
    ('segments/000001/items.jsonl', lambda path: path.unlink(), 'items.jsonl: No such file or directory'),
    ('deleted_000002.npy', flip, 'deleted_000002.npy: not what was written'),
    ('deleted_000002.npy', lambda path: path.unlink(), 'deleted_000002.npy: No such file'),
    ('manifest.json', cut, 'no error'),
    ('manifest.json', lambda path: path.write_bytes(b'{"format": 1'), 'manifest.json: not JSON'),
    ('manifest.json', lambda path: path.write_bytes(b'{"format": 2}'), 'not the manifest of an index in format 1'),
    ('manifest.json', lambda path: path.write_bytes(b'{"format": 1}'), 'manifest.json: damaged: TypeError'),
    ('manifest.json', lambda path: path.write_bytes(b'[]'), 'manifest.json: JSON of type list'),
  ],
)
def test_a_damaged_file_is_named(tmp_path, name, damage, message):
  folder = make_index(tmp_path / 'index', make_content(IDS))
  with open_writer(folder) as writer:
    writer.delete(IDS[:2])
  damage(folder / name)
  if message == 'no error':  # the line break at the end
    assert len(open_snapshot(folder)) == 10
    return
  with pytest.raises(UserError, match=message):
    open_snapshot(folder)


def test_a_changed_bit_is_found_by_reading_everything(tmp_path):
  folder = make_index(tmp_path / 'index', make_content(IDS))
  for name in ('embeddings.npy', 'items.jsonl'):
    path = folder / 'segments/000001' / name
    whole = path.read_bytes()
    flip(path)
    (problem,) = open_snapshot(folder).problems()
    assert f'{name}: not what was written' in problem
    path.write_bytes(whole)
  path.write_bytes(whole.replace(b'"picture 3"', b'"picture 9"'))
  snapshot = open_snapshot(folder)
  with pytest.raises(UserError, match="items.jsonl: line 4 is damaged: id 'picture 9', expected 'picture 3'"):
    snapshot.item(snapshot.row('picture 3'))
