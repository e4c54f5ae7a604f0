"""The user's door: sentences, pictures and ids as queries; states that change meanwhile; mistakes."""

import dataclasses
import pathlib
import shutil
import threading

import jax
import numpy as np
import pytest
import small_pictures
from PIL import Image

import hrem_jax
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError
from hrem_jax.search.encode import encode
from hrem_jax.search.index import BrokenIndex, Where, open_index
from hrem_jax.search.run_encoder import RunEncoder
from hrem_jax.search.searcher import Hit, open_searcher

TEXT = 'caption 1 of picture 3'


@pytest.fixture(scope='module')
def encoder(world):
  return RunEncoder(world / 'run')


@pytest.fixture(scope='module')
def index(world, encoder):
  encode(encoder, world / 'data', world / 'index', progress=False)
  return world / 'index'


@pytest.fixture(scope='module')
def searcher(index):
  return open_searcher(index)


@pytest.fixture
def copied(index, tmp_path):
  return pathlib.Path(shutil.copy(index, tmp_path / 'index'))


def test_what_is_in_it(searcher, world):
  assert len(searcher) == 16
  assert searcher.ids() == sorted([f'picture_{number}' for number in [*range(12), 50, 51, 52, 53]])
  assert searcher.ids(2, 3) == searcher.ids()[2:5]
  assert searcher.ids(15, 9) == searcher.ids()[15:]
  assert searcher.ids(16) == searcher.ids(0, 0) == []
  hit = searcher.item('picture_3')
  picture = world / 'data/own_precomp/pictures/picture_3.jpg'
  assert hit == Hit('picture_3', 1.0, ('caption 0 of picture 3', 'caption 1 of picture 3'), picture.resolve())
  assert searcher.item('picture_50').captions == ()


def test_scores_are_cosines_of_the_run(searcher, world):
  matcher = hrem_jax.restore(world / 'run')
  split = load_split(world / 'data/own_precomp', 'train')
  images = matcher.encode_images(*split.features.rows(np.arange(split.num_images)))
  expected = dict(zip(split.ids, images @ matcher.encode_texts([TEXT])[0], strict=True))
  hits = searcher.by_text(TEXT, 16)
  assert len(hits) == 16
  assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
  assert {hit.id: hit.score for hit in hits if hit.id in expected} == pytest.approx(expected, abs=1e-5)
  assert searcher.by_text(TEXT, 3) == hits[:3]
  assert len(searcher.by_text(TEXT, 99)) == 16
  assert searcher.by_text(TEXT, 0) == []


def test_words_and_both_ways_together(searcher):
  words = searcher.by_text('caption "picture 3"', by='words')
  assert [hit.id for hit in words] == ['picture_3']
  assert searcher.by_text('zebra', by='words') == []
  nearest = searcher.by_text('caption of picture 3', 16)
  words = searcher.by_text('caption of picture 3', 16, by='words')
  both = searcher.by_text('caption of picture 3', 16, by='both')
  ranks = [{hit.id: rank for rank, hit in enumerate(hits, 1)} for hits in (nearest, words)]
  expected = {name: sum(1 / (60 + each[name]) for each in ranks if name in each) for name in ranks[0]}
  assert {hit.id: hit.score for hit in both} == pytest.approx(expected)
  assert [hit.id for hit in both] == sorted(expected, key=lambda name: (-expected[name], name))
  assert searcher.by_text('caption of picture 3', 2, by='both') == both[:2]
  with pytest.raises(UserError, match="search by 'colour': expected meaning, words, both"):
    searcher.by_text('dog', by='colour')


def test_filters(searcher, world):
  where = Where(caption='picture 1')
  expected = {'picture_1', 'picture_10', 'picture_11'}
  assert {hit.id for hit in searcher.by_text(TEXT, where=where)} == expected
  assert {hit.id for hit in searcher.by_id('picture_3', where=where)} == expected
  assert {hit.id for hit in searcher.by_picture(small_pictures.random_picture(1), where=where)} == expected


def test_a_picture_finds_itself(searcher, world):
  for name in ('picture_7', 'picture_52'):
    with Image.open(world / f'pictures/{name}.jpg') as picture:
      hits = searcher.by_picture(picture, 3)
      gray = searcher.by_picture(picture.convert('L'), 16)
    assert hits[0].id == name
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert len({hit.id for hit in gray}) == 16
  others = searcher.by_id('picture_7', 3)
  assert 'picture_7' not in [hit.id for hit in others]
  with Image.open(world / 'pictures/picture_7.jpg') as picture:
    expected = searcher.by_picture(picture, 4)[1:]
  assert [hit.id for hit in others] == [hit.id for hit in expected]


def test_a_query_needs_no_program_of_its_own(searcher, caplog):
  words = TEXT.split() * 3
  for length in (1, 7, 8, 9, 13):
    searcher.by_text(' '.join(words[:length]))
  with jax.log_compiles(), caplog.at_level('WARNING'):
    for length in (2, 3, 6, 7, 8, 9, 10, 14, 15):
      searcher.by_text(' '.join(words[:length]))
    searcher.by_picture(small_pictures.random_picture(1))
    num_compiled = len(caplog.records)
    searcher.by_picture(small_pictures.random_picture(2, (90, 51)))
  assert len(caplog.records) == num_compiled
  assert not [record for record in caplog.records if 'encode_texts' in record.getMessage()]


def test_many_threads_get_the_same(searcher, world):
  with Image.open(world / 'pictures/picture_2.jpg') as opened:
    picture = opened.convert('RGB')
  calls = [
    lambda: searcher.by_text(TEXT),
    lambda: searcher.by_picture(picture),
    lambda: searcher.by_id('picture_5'),
    searcher.ids,
  ]
  expected, problems = [call() for call in calls], []

  def work(number):
    for call, what in list(zip(calls, expected, strict=True))[number % 4 :]:
      if call() != what:
        problems.append(number)

  threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not problems


def test_a_searcher_sees_what_a_writer_adds_and_deletes(copied):
  searcher = open_searcher(copied)
  before = searcher.by_text(TEXT, 16)
  with open_index(copied) as index:
    index.delete([before[0].id])
  assert searcher.by_text(TEXT, 16) == before[1:]
  assert len(searcher) == 15
  with pytest.raises(UserError, match='no picture'):
    searcher.item(before[0].id)
  copied.unlink()
  with pytest.raises(BrokenIndex, match='no index there'):
    searcher.ids()


def test_moved_and_copied(world, tmp_path):
  """Data, run and index in a folder that moves, into a container, say; and the index alone."""
  folder = pathlib.Path(shutil.copytree(world, tmp_path / 'before'))
  encode(RunEncoder(folder / 'run'), folder / 'data', folder / 'own_index', splits=['test'], progress=False)
  copied = pathlib.Path(shutil.copytree(folder, tmp_path / 'copied'))
  (tmp_path / 'alone').mkdir()
  alone = pathlib.Path(shutil.copy(folder / 'own_index', tmp_path / 'alone' / 'own_index'))
  for index, its in ((copied / 'own_index', copied), (alone, folder)):
    hit = open_searcher(index).by_text(TEXT, 1)[0]
    assert hit.picture.resolve().is_relative_to(its)
  moved = folder.rename(tmp_path / 'after')
  hit = open_searcher(moved / 'own_index').by_text(TEXT, 1)[0]
  assert hit.picture.is_file()
  assert hit.picture.resolve().is_relative_to(moved)


@pytest.mark.parametrize(
  ('ask', 'message'),
  [
    (lambda searcher: searcher.by_text(' \n'), 'a query without words: expected is a sentence'),
    (lambda searcher: searcher.by_text(''), 'a query without words'),
    (
      lambda searcher: searcher.by_text('zebra xylophone'),
      "no word of 'zebra xylophone' is in the vocabulary of .*run",
    ),
    (lambda searcher: searcher.by_id('picture_99'), "no picture 'picture_99' in this index"),
    (lambda searcher: searcher.item('../picture_9'), "no picture '../picture_9' in this index"),
  ],
)
def test_mistakes_in_queries(searcher, ask, message):
  with pytest.raises(UserError, match=message):
    ask(searcher)


def test_words_that_the_run_has_not_learnt(searcher):
  assert searcher.unknown_words('caption Zebra of picture 3') == ['Zebra']
  assert searcher.by_text('caption Zebra of picture 3')
  assert searcher.unknown_words(TEXT) == []


def changed(index, **changes):
  with open_index(index) as opened:
    opened.describe(dataclasses.replace(opened.state().about, **changes))


def identity(**changes):
  return lambda about: {'encoder': about.encoder | {'identity': about.encoder['identity'] | changes}}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (identity(sha256='0'), "made by another encoder than .*run .sha256 was '0', is '"),
    (identity(step=99), 'run: no checkpoint of step 99, there are .* be made anew'),
    (identity(kind='else'), "made by an encoder of kind 'else'"),
    (
      lambda about: {'encoder': about.encoder | {'place': {'path': '/gone', 'from_index': 'gone'}}},
      '/gone/config.json: no such file',
    ),
  ],
)
def test_indexes_of_other_encoders(copied, change, message):
  changed(copied, **change(open_index(copied).state().about))
  with pytest.raises(UserError, match=message):
    open_searcher(copied)


def pictures(**changes):
  return lambda about: {'pictures': about.pictures | {'encoder': about.pictures['encoder'] | changes}}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda about: {'pictures': None}, 'no provenance.json that says which encoder made'),
    (pictures(preprocessing_sha256='0'), 'encoder patches: not the one that made'),
    (pictures(encoder='eyes'), 'does not know the folder of the encoder, eyes;'),
  ],
)
def test_pictures_through_another_encoder_are_refused(copied, change, message):
  changed(copied, **change(open_index(copied).state().about))
  searcher = open_searcher(copied)
  with pytest.raises(UserError, match=message):
    searcher.by_picture(small_pictures.random_picture(1))


def test_an_empty_index(copied):
  with open_index(copied) as index:
    index.delete(index.ids())
  searcher = open_searcher(copied)
  assert len(searcher) == 0
  assert searcher.ids() == searcher.by_text(TEXT) == []
