"""CxC and ECCV Caption: our figures beside the package's own evaluator, on its real ids."""

import importlib.util
import warnings

import numpy as np
import pytest

from hrem_jax.errors import UserError
from hrem_jax.retrieval import coco_judgements
from hrem_jax.retrieval.coco_judgements import (
  coco_caption_ids,
  coco_image_ids,
  judged_metrics,
  judgements,
  karpathy_order,
)
from hrem_jax.retrieval.matches import Matches, matches_of, precisions, recalls
from hrem_jax.retrieval.scores import DotScores

pytestmark = pytest.mark.skipif(not importlib.util.find_spec('eccv_caption'), reason='needs eccv-caption')
OWNER = np.arange(25000) // 5
DEPTH = 60  # beyond the most right answers of any query, 48


@pytest.fixture(scope='module')
def coco():
  """Embeddings of COCO's size in Karpathy's order, good enough that figures are neither 0 nor 100."""
  rng = np.random.default_rng(0)
  images = rng.normal(size=(5000, 13)).astype(np.float32)
  texts = (images[OWNER] + 0.7 * rng.normal(size=(25000, 13))).astype(np.float32)
  return images, texts


@pytest.fixture(scope='module')
def ours(coco):
  return judged_metrics(
    DotScores(*coco), OWNER, coco_caption_ids(), image_ids=list(map(str, coco_image_ids())), chunk=997
  )


@pytest.fixture(scope='module')
def package():
  """The package's module of metrics and its evaluator."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # it misses ujson
    from eccv_caption import Metrics, _metrics

    return _metrics, Metrics()


def best(scores: np.ndarray, ids: np.ndarray, count: int = DEPTH) -> list[list[int]]:
  """Ids of the best of each row, best first."""
  order = np.argsort(-scores, axis=1)[:, :count]
  return ids[order].tolist()


@pytest.fixture(scope='module')
def retrieved(coco):
  """What the package's evaluator wants: ids of the best answers of every query."""
  images, texts = coco
  found = {}
  for way, asking, asked, of, ids in (
    ('i2t', images, texts, coco_image_ids(), coco_caption_ids()),
    ('t2i', texts, images, coco_caption_ids(), coco_image_ids()),
  ):
    found[way] = {}
    for start in range(0, len(asking), 1000):
      rows = slice(start, start + 1000)
      found[way] |= dict(zip(of[rows].tolist(), best(asking[rows] @ asked.T, ids), strict=True))
  return found


def test_cxc_and_5k_equal_the_package(ours, package, retrieved):
  _, evaluator = package
  for k in (1, 5, 10):
    for name, theirs in (
      ('cxc', evaluator.cxc_recalls(retrieved, 'all', K=k)),
      ('coco_5k', evaluator.coco_5k_recalls(retrieved, 'all', K=k)),
    ):
      for way in ('i2t', 't2i'):
        assert 1 < ours[f'{name}/{way}/r{k}'] < 99
        assert ours[f'{name}/{way}/r{k}'] == pytest.approx(100 * theirs[way], rel=1e-9), (name, way, k)
  for name in ('cxc', 'coco_5k'):
    six = [ours[f'{name}/{way}/r{k}'] for way in ('i2t', 't2i') for k in (1, 5, 10)]
    assert ours[f'{name}/rsum'] == pytest.approx(sum(six))
  assert ours['cxc/rsum'] > ours['coco_5k/rsum']  # more right answers, the same candidates


def test_eccv_caption_equals_the_package(ours, package, retrieved):
  theirs = package[1].eccv_metrics(retrieved, 'all')
  for way in ('i2t', 't2i'):
    for name, value in (('r1', 'eccv_r1'), ('r_precision', 'eccv_rprecision'), ('map_at_r', 'eccv_map_at_r')):
      assert 1 < ours[f'eccv/{way}/{name}'] < 99
      assert ours[f'eccv/{way}/{name}'] == pytest.approx(100 * theirs[value][way], rel=1e-9), (way, name)


def test_the_folds_are_those_of_the_package(ours, package, coco):
  """Its function, given per fold only what it would filter out of whole lists in a quarter of an hour."""
  (metrics, evaluator), (images, texts) = package, coco
  captions, images_ids, recall = coco_caption_ids(), coco_image_ids(), {'i2t': [], 't2i': []}
  for fold in range(5):
    fold_captions = evaluator.coco_ids[5000 * fold : 5000 * (fold + 1)].tolist()
    right = {'t2i': {caption: evaluator.coco_gts['t2i'][caption] for caption in fold_captions}}
    right['i2t'] = {images[0]: evaluator.coco_gts['i2t'][images[0]] for images in right['t2i'].values()}
    rows, columns = np.isin(images_ids, list(right['i2t'])), np.isin(captions, fold_captions)
    scores = images[rows] @ texts[columns].T
    found = dict(zip(images_ids[rows].tolist(), best(scores, captions[columns], 5), strict=True))
    recall['i2t'].append(metrics.compute_coco1k_r_at_k(found, right['i2t'], set(fold_captions), 5))
    found = dict(zip(captions[columns].tolist(), best(scores.T, images_ids[rows], 5), strict=True))
    recall['t2i'].append(metrics.compute_coco1k_r_at_k(found, right['t2i'], set(right['i2t']), 5))
  for way, values in recall.items():
    assert ours[f'coco_1k/{way}/r5'] == pytest.approx(100 * np.mean(values), rel=1e-9)


def test_any_order_of_images_and_captions(ours, coco):
  images, texts = coco
  rng = np.random.default_rng(1)
  rows, columns = rng.permutation(5000), rng.permutation(25000)
  place = np.argsort(rows)
  found = judged_metrics(DotScores(images[rows], texts[columns]), place[OWNER[columns]], coco_caption_ids()[columns])
  assert found.keys() == ours.keys()
  for key, value in ours.items():
    assert found[key] == pytest.approx(value, rel=1e-6), key


def test_the_data_of_the_package():
  assert coco_caption_ids().shape == (25000,)
  assert coco_image_ids()[0] == 391895
  assert [len(judgements('eccv', way)) for way in ('i2t', 't2i')] == [1261, 1332]
  assert [len(judgements('cxc', way)) for way in ('i2t', 't2i')] == [5000, 24972]
  # Two right answers of ECCV Caption are no captions of the test set: they count, and nobody finds them.
  rows = {id_: row for row, id_ in enumerate(coco_caption_ids().tolist())}
  images = {id_: row for row, id_ in enumerate(coco_image_ids().tolist())}
  matches = matches_of(judgements('eccv', 'i2t'), images, rows)
  assert sum(matches.counts) - sum(map(len, matches.answers)) == 2
  for query, answers in zip(matches.queries, matches.answers, strict=True):
    known = {caption for caption in judgements('eccv', 'i2t')[int(coco_image_ids()[query])] if caption in rows}
    assert set(coco_caption_ids()[answers].tolist()) == known


def changed(at, value):
  ids = coco_caption_ids().copy()
  ids[at] = ids[value] if isinstance(value, slice | list) else value
  return ids


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (lambda: (OWNER, 5000, coco_caption_ids()[:-1], None), 'here: 24999 caption ids for 25000 captions'),
    (lambda: (OWNER, 5000, changed(6, 39), None), 'here: 39 .caption 7. is no caption of COCO 5K'),
    (lambda: (OWNER, 5000, changed(6, 770337), None), 'here: caption id 770337 stands there 2 times'),
    (lambda: (OWNER[5:], 5000, coco_caption_ids()[5:], None), 'here: 5 of the 25000 captions of COCO 5K are missing'),
    (
      lambda: (OWNER, 5000, changed([4, 5], [5, 4]), None),
      r'here: captions \[770337, 771687, 772707, 776154, 781998\] of COCO image 391895 do not own one image',
    ),
    (lambda: (np.arange(25000) // 10, 2500, coco_caption_ids(), None), 'of COCO image 60623 do not own one image'),
    (lambda: (OWNER, 5001, coco_caption_ids(), None), 'here: 5001 images, COCO 5K has 5000'),
    (
      lambda: (OWNER, 5000, coco_caption_ids(), list(map(str, coco_image_ids()[::-1]))),
      r'here: caption 770337 belongs to COCO image 391895, in the data set to \d+',
    ),
  ],
)
def test_ids_that_do_not_fit(arguments, message):
  with pytest.raises(UserError, match=message):
    karpathy_order(*arguments(), 'here')


def test_ids_of_ones_own_say_nothing():
  rows, columns = karpathy_order(OWNER, 5000, coco_caption_ids(), [str(row) for row in range(5000)], 'here')
  np.testing.assert_array_equal(rows, np.arange(5000))
  np.testing.assert_array_equal(columns, np.arange(25000))


def test_without_the_package(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"needs the package eccv-caption: pip install 'hrem_jax\[protocols\]'"):
    coco_judgements._data_folder.__wrapped__()


def test_identical_answers_tie_and_a_collapsed_model_gets_chance():
  rng = np.random.default_rng(2)
  asking, asked = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(53, 3)).astype(np.float32)
  asked[29:] = asked[:24]
  for rows, scores in DotScores(asking, asked).blocks(np.arange(7), side='images', chunk=3):
    assert scores.shape == (min(3, 7 - rows.start), 53)
    np.testing.assert_array_equal(scores[:, 29:], scores[:, :24])
    np.testing.assert_allclose(scores, asking[rows] @ asked.T, atol=1e-6)
  matches = Matches(np.array([5, 2]), [np.array([1, 30]), np.array([4])], np.array([2, 1]))
  alike = DotScores(np.ones((7, 2)), np.ones((53, 2)))
  assert precisions(alike, matches, side='images', ties='expected')['r1'] == pytest.approx(100 * (2 / 53 + 1 / 53) / 2)
  assert precisions(alike, matches, side='images', ties='expected')['r_precision'] == pytest.approx(
    100 * (2 / 53 + 1 / 53) / 2
  )
  assert recalls(alike, matches, side='images', ties='optimistic')['r1'] == 100
  assert precisions(alike, matches, side='images', ties='pessimistic') == {'r1': 0, 'r_precision': 0, 'map_at_r': 0}


def test_a_score_that_is_not_finite():
  asking, asked = np.ones((3, 2)), np.ones((5, 2))
  asked[4, 1] = np.inf
  with pytest.raises(FloatingPointError, match='the score of query 2 and candidate 4 is NaN or infinite'):
    list(DotScores(asking, asked).blocks(np.array([2, 1]), side='images', chunk=2))
