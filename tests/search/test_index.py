"""What every index does, whatever engine keeps it: pictures come, go, are replaced, are found as in a dictionary."""

import dataclasses
import pathlib
import secrets
import sys
import threading
import urllib.request

import numpy as np
import pytest
import small_index
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_index import SIZE, about, add, assert_same_content, content_of, found, make_content, make_index, unit_vectors

from hrem_jax.errors import UserError
from hrem_jax.search import blocks
from hrem_jax.search.index import Found, Item, Place, UnknownPicture, Where, create_index, open_index
from hrem_jax.search.recall import recall_of

POOL = unit_vectors(7, 6)  # few: many pictures have equal embeddings
IDS = [f'picture {number}' for number in range(12)]

additions = st.dictionaries(
  st.sampled_from(IDS), st.tuples(*[st.integers(0, len(POOL) - 1)] * 2), min_size=1, max_size=5
)
deletions = st.sets(st.sampled_from(IDS), min_size=1, max_size=4)
operations = st.one_of(st.tuples(st.just('add'), additions), st.tuples(st.just('delete'), deletions))


def sqlite(request):
  return lambda folder, name='index': str(folder / name)


def lance(request):
  pytest.importorskip('lancedb')
  return lambda folder, name='index': f'{folder}/{name}.lance'


def bucket(request):
  """An object store that speaks the protocol of S3, on this machine."""
  pytest.importorskip('lancedb')
  address = request.getfixturevalue('object_store')
  return lambda folder, name='index': f'{address}/{secrets.token_hex(4)}/{name}.lance'


@pytest.fixture(scope='module')
def object_store():
  server = pytest.importorskip('moto.server').ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  with pytest.MonkeyPatch.context() as patch:
    server.start()
    endpoint = 'http://{}:{}'.format(*server.get_host_and_port())
    for name, value in (('ENDPOINT_URL', endpoint), ('ACCESS_KEY_ID', 'a'), ('SECRET_ACCESS_KEY', 'b')):
      patch.setenv(f'AWS_{name}', value)
    patch.setenv('AWS_REGION', 'us-east-1')
    urllib.request.urlopen(urllib.request.Request(f'{endpoint}/pictures', method='PUT')).close()
    yield 's3://pictures'
    server.stop()


ENGINES = [sqlite, pytest.param(lance, marks=pytest.mark.slow), pytest.param(bucket, marks=pytest.mark.slow)]


@pytest.fixture(params=ENGINES)
def engine(request):
  """Makes addresses in a folder."""
  return request.param(request)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, max_size=10), st.integers(0, 99), st.sampled_from([1, 3, 2**20]), st.sampled_from([1, 2]))
def test_a_search_is_that_of_a_dictionary(tmp_path_factory, engine, done, seed, room, views):
  address, expected = engine(tmp_path_factory.mktemp('index')), {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(blocks, 'ROOM', room * SIZE * 4 * views)
    make_index(address, views=views)
    reader = open_index(address)  # sees everything
    for number, (kind, what) in enumerate(done):
      with open_index(address) as index:
        if kind == 'add':
          content = {name: (POOL[list(v[:views])], f'{name} at {number}') for name, v in what.items()}
          add(index, content)
          expected |= content
        else:
          assert set(index.delete(sorted(what))) == what - set(expected)
          expected = {name: each for name, each in expected.items() if name not in what}
      if number % 3 == 0:
        assert reader.state().pictures == len(expected) == len(reader.ids())
  for index in (reader, open_index(address)):
    assert not index.problems()
    assert_same_content(content_of(index), expected)
    for query in unit_vectors(seed, 2):
      for count in (1, 4, 100):
        assert found(index, query, count) == small_index.brute_force(expected, query, count)
        assert (np.diff([each.score for each in index.nearest(query[None], count)]) <= 0).all()


def test_a_score_is_the_greatest_of_all_pairs(tmp_path, engine):
  content = make_content(IDS, views=3)
  index = open_index(make_index(engine(tmp_path), content, views=3))
  queries = unit_vectors(4, 2)
  expected = {
    name: float((np.float64(vectors) @ np.float64(queries).T).max()) for name, (vectors, _) in content.items()
  }
  got = index.nearest(queries, 12)
  assert [each.item.id for each in got] == sorted(expected, key=expected.get, reverse=True)
  assert [each.score for each in got] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-6)
  assert index.nearest(queries, 0) == []


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_equal_embeddings_have_equal_scores_wherever_they_lie(tmp_path, engine, dtype, monkeypatch):
  """A matrix product rounds by position; the order of equal pictures is that of their ids all the same."""
  monkeypatch.setattr(blocks, 'ROOM', 67 * 4 * 50)
  size, count = 67, 300
  vectors = unit_vectors(0, 3, size)[np.random.default_rng(0).integers(0, 3, count)]
  ids = [f'{number:03d}' for number in np.random.default_rng(1).permutation(count)]
  with create_index(engine(tmp_path), about(size=size, dtype=dtype)) as index:
    for part in np.array_split(np.arange(count), 5):
      index.add([Item(ids[i], (), '') for i in part], vectors[part][:, None])
    hits = index.nearest(unit_vectors(5, 1, size), 40)
  names = [hit.item.id for hit in hits]
  assert names == sorted(names)
  assert len({hit.score for hit in hits}) == 1
  best = vectors[ids.index(names[0])]
  assert names == sorted(name for name, vector in zip(ids, vectors, strict=True) if (vector == best).all())[:40]


def test_all_that_is_known_of_a_picture(tmp_path, engine):
  item = Item(
    'a/b "c" – \U0001f427', ('One.', 'Zwei: ümlaut\ttab'), 'print', '/data', 'pictures/a.jpg', 'photos/a b.jpg'
  )
  with create_index(engine(tmp_path), about()) as index:
    index.add([item, Item('none', (), '')], unit_vectors(0, 2)[:, None])
    assert index.item(item.id) == item
    assert index.item('none') == Item('none', (), '')
    assert index.fingerprints(['none', 'nobody', item.id]) == {'none': '', item.id: 'print'}
    assert index.nearest(unit_vectors(0, 1), 1) == [Found(item, pytest.approx(1))]
    assert (index.ids(), index.ids(1), index.ids(0, 1)) == ([item.id, 'none'], ['none'], [item.id])
    for unknown in ('nobody', '', "'; DROP TABLE pictures", 'none\0'):
      for ask in (index.item, index.vectors):
        with pytest.raises(UnknownPicture, match='no picture .* in this index'):
          ask(unknown)


def test_half_precision(tmp_path, engine):
  content, query = make_content(IDS), unit_vectors(3, 1)
  scores = [
    [each.score for each in open_index(make_index(engine(tmp_path, dtype), content, dtype=dtype)).nearest(query, 12)]
    for dtype in ('float32', 'float16')
  ]
  np.testing.assert_allclose(*scores, atol=2e-3)
  assert scores[0] != scores[1]


def test_what_is_said_of_all_pictures(tmp_path, engine):
  said = about(pictures={'encoder': {'a': 1}}, sources={'/data': Place('/data', '../data')}, views=2)
  with create_index(engine(tmp_path), said) as index:
    assert index.state().about == said
    changed = dataclasses.replace(said, picture_encoder=Place('/tower', 'tower'), sources={})
    version = index.state().version
    index.describe(changed)
    assert index.state().about == open_index(index.address).state().about == changed
    assert index.state().version != version
  with create_index(index.address, about(id='another')) as again:
    assert again.state().about == changed


@pytest.mark.parametrize(
  ('ids', 'vectors', 'message'),
  [
    (['a', 'a'], unit_vectors(0, 2), "picture 'a' comes 2 times"),
    (['a', ''], unit_vectors(0, 2), "'' cannot be the id of a picture"),
    (['a', 'b\nc'], unit_vectors(0, 2), r"'b\\nc' cannot be the id"),
    (['a', 'b\udce9'], unit_vectors(0, 2), r"'b.udce9' cannot be the id"),
    (['a', 'b'], unit_vectors(0, 2) * [[1], [2]], "embedding of 'b' has length 2"),
    (['a', 'b'], unit_vectors(0, 2) * np.nan, "embedding of 'a' has length nan"),
    (['a', 'b'], unit_vectors(0, 2, SIZE + 1), r'embeddings \(2, 1, 6\), expected \(2, 1, 5\)'),
    (['a'], unit_vectors(0, 2), r'embeddings \(2, 1, 5\), expected \(1, 1, 5\)'),
  ],
)
def test_what_cannot_be_added_changes_nothing(tmp_path, engine, ids, vectors, message):
  address = make_index(engine(tmp_path), make_content(IDS))
  before = open_index(address).state()
  with pytest.raises(UserError, match=message), open_index(address) as index:
    index.add([Item(name, (), '') for name in ids], vectors[:, None].astype(np.float32))
  assert open_index(address).state() == before


def test_deleting_may_be_repeated(tmp_path, engine):
  address = make_index(engine(tmp_path), make_content(IDS))
  for missing in ([], IDS[:3]):
    with open_index(address) as index:
      assert index.delete([*IDS[:3], *IDS[:3], 'nobody']) == [*missing, 'nobody']
      assert index.ids() == sorted(IDS[3:])
  with open_index(address) as index:
    assert index.delete(IDS[3:]) == []
    assert (index.ids(), index.nearest(unit_vectors(0, 1), 3), index.state().pictures) == ([], [], 0)
    add(index, make_content(IDS[:2]))
    assert index.ids() == IDS[:2]


def test_two_writers_at_the_same_time(tmp_path, engine):
  """Neither waits for the end of the other, and nothing is lost."""
  address, problems = make_index(engine(tmp_path)), []

  def write(number):
    try:
      with open_index(address) as index:
        for part in range(5):
          add(index, make_content([f'{number}-{part}-{row}' for row in range(4)], part))
        index.delete([f'{number}-0-0'])
    except Exception as error:
      problems.append(error)

  threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not problems
  index = open_index(address)
  assert index.ids() == sorted(f'{n}-{p}-{r}' for n in '01' for p in range(5) for r in range(4) if (p, r) != (0, 0))
  assert not index.problems()


def test_readers_see_whole_states_while_a_writer_works(tmp_path, engine):
  """A writer deletes pairs and adds them again; no reader ever sees half a pair."""
  address = make_index(engine(tmp_path), make_content(IDS))
  pair, index = make_content(IDS[:2]), open_index(address)
  is_done, seen, problems = threading.Event(), set(), []

  def read():
    while not is_done.is_set():
      try:
        names = index.ids()
        seen.add(tuple(name in names for name in pair))
        hits = index.nearest(unit_vectors(1, 1), 12)
        assert len(hits) in (10, 12)
        index.item(IDS[9])
      except Exception as error:
        problems.append(error)

  threads = [threading.Thread(target=read) for _ in range(3)]
  for thread in threads:
    thread.start()
  with open_index(address) as writer:
    for number in range(12):
      if number % 2:
        add(writer, pair)
      else:
        writer.delete(list(pair))
  is_done.set()
  for thread in threads:
    thread.join()
  assert not problems
  assert seen == {(True, True), (False, False)}


CAPTIONS = {
  'a/rex': ('A brown dog runs.', 'Two Dogs on the grass, one of them BROWN'),
  'b/cat': ('A cat looks at a dog.',),
  'c': ('Ein Hündchen: "wau"',),
  'd': (),
  'e': ('brown grass; a runaway dog',),
}


@pytest.fixture
def described(tmp_path, engine):
  items = [
    Item(name, captions, 'print', path=f'holidays/{name}.jpg' if '/' in name else None)
    for name, captions in CAPTIONS.items()
  ]
  with create_index(engine(tmp_path), about()) as index:
    index.add(items, unit_vectors(0, 5)[:, None])
    yield index


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('dog', {'a/rex', 'b/cat', 'e'}),
    ('DOG brown', {'a/rex', 'e'}),
    ('"brown dog"', {'a/rex'}),
    ('"dog brown"', set()),
    ('hundchen', {'c'}),
    ('rex', {'a/rex'}),
    ('holidays cat', {'b/cat'}),
    ('run', set()),
    ('dog OR cat', set()),
    ('do* (', set()),
    ("dog's NEAR/2", set()),
  ],
)
def test_words_are_found_as_they_stand(described, text, expected):
  hits = described.words(text, 10)
  assert {hit.item.id for hit in hits} == expected
  assert all(hit.item.captions == CAPTIONS[hit.item.id] for hit in hits)
  scores = [(-hit.score, hit.item.id) for hit in hits]
  assert scores == sorted(scores)
  assert described.words(text, 1) == hits[:1]


@pytest.mark.parametrize('text', ['', ' ', '"', '()', '* -'])
def test_without_words(described, text):
  with pytest.raises(UserError, match='a query without words'):
    described.words(text, 3)


def test_words_follow_what_changes(described):
  assert len(described.words('dog', 9)) == 3
  with open_index(described.address) as index:
    index.add([Item('d', ('A dog, at last.',), 'print'), Item('e', ('nothing',), 'print')], unit_vectors(1, 2)[:, None])
  for reader in (described, open_index(described.address)):
    assert {hit.item.id for hit in reader.words('dog', 9)} == {'a/rex', 'b/cat', 'd'}
  with open_index(described.address) as index:
    index.delete(['d', 'b/cat'])
  assert [hit.item.id for hit in described.words('dog', 9)] == ['a/rex']


@pytest.mark.parametrize(
  ('where', 'expected'),
  [
    (Where(caption='BROWN d'), {'a/rex'}),
    (Where(caption='dog'), {'a/rex', 'b/cat', 'e'}),
    (Where(caption='hünd'), {'c'}),
    (Where(caption='"wau"'), {'c'}),
    (Where(caption='%'), set()),
    (Where(path='holidays/*'), {'a/rex', 'b/cat'}),
    (Where(path='*/?at.jpg'), {'b/cat'}),
    (Where(path='holidays/[ab]*'), set()),
    (Where('dog', '*rex*'), {'a/rex'}),
  ],
)
def test_only_some_pictures(described, where, expected):
  query = unit_vectors(3, 1)
  everything = [hit for hit in described.nearest(query, 5) if hit.item.id in expected]
  assert described.nearest(query, 5, where=where) == everything
  assert described.nearest(query, 1, where=where) == everything[:1]
  assert {hit.item.id for hit in described.words('dog', 9, where=where)} == expected & {'a/rex', 'b/cat', 'e'}


@pytest.mark.slow
@pytest.mark.parametrize('engine', [lance], indirect=True)
def test_the_graph_of_lancedb(tmp_path, engine):
  vectors = unit_vectors(0, 2000, 16)
  with create_index(engine(tmp_path), about(size=16)) as index:
    index.add([Item(f'{number:04d}', (), '') for number in range(2000)], vectors[:, None])
    assert index.prepare('exact') is None
    assert index.prepare('lance') > 0
    assert index.prepare('lance') is None
    assert recall_of(index, 'lance', unit_vectors(1, 30, 16)[:, None], 10) > 0.9
    index.add([Item('new', (), '')], unit_vectors(1, 1, 16)[:, None])
    assert index.nearest(unit_vectors(1, 1, 16), 1, backend='lance')[0].item.id == 'new'


@pytest.mark.slow
@pytest.mark.parametrize('engine', [lance], indirect=True)
def test_what_is_forgotten_is_gone_from_a_table(tmp_path, engine):
  address = make_index(engine(tmp_path), *(make_content(IDS[part::3], part) for part in range(3)))
  gone = make_content(IDS[1::3], 1)

  def traces():
    everything = b''.join(path.read_bytes() for path in tmp_path.rglob('*') if path.is_file())
    return [name for name, (vectors, _) in gone.items() if vectors.tobytes() in everything]

  with open_index(address) as index:
    index.words('about', 3)
    index.prepare('lance')
    assert traces()
    index.delete(list(gone))
    assert not traces()
    assert len(index.words('about', 99)) == 8
    assert len(found(index, unit_vectors(0, 1)[0], 99, backend='lance')) == 8


@pytest.mark.parametrize(
  'address', ['s3://pictures', 's3://pictures/index', 'gs://bucket/a/index.sqlite', 'http://x/a.lance']
)
def test_addresses_that_are_none(address):
  with pytest.raises(UserError, match='an address, expected a file, or s3://BUCKET/NAME.lance'):
    open_index(address)


def test_an_engine_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'lancedb', None)
  with pytest.raises(UserError, match=r"index.lance: LanceDB is not installed: pip install 'hrem_jax\[lance\]'"):
    open_index('index.lance')


def test_a_folder_that_is_an_index_of_an_earlier_version(tmp_path):
  old = tmp_path / 'index'
  old.mkdir()
  (old / 'manifest.json').write_text(
    '{"encoder": {"identity": {"kind": "run"}, "place": {"path": "/runs/own"}}, "sources": [{"path": "/data/own"}]}'
  )
  for ask in (open_index, lambda address: create_index(address, about())):
    with pytest.raises(UserError, match='index: an index of an earlier version') as error:
      ask(old)
    assert f'`python -m hrem_jax encode /runs/own --data /data/own --index {old}.sqlite`' in str(error.value)
  assert [path.name for path in pathlib.Path(old).iterdir()] == ['manifest.json']
