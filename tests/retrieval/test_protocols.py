"""Evaluation protocols: whole sets, the COCO folds, and the printed table."""

import numpy as np
import oracle_ranking as oracle
import pytest

from hrem_jax.errors import UserError
from hrem_jax.ops.ranking import retrieval_metrics
from hrem_jax.retrieval.protocols import format_table, protocol_metrics
from hrem_jax.retrieval.scores import ChanceScores, DotScores

COCO_OWNER = np.arange(25000) // 5


def evaluate(images, texts, owner, **options):
  return protocol_metrics(DotScores(images, texts), owner, **options)


@pytest.fixture(scope='module')
def coco():
  """Embeddings of COCO's test-set size, good enough that figures are neither 0 nor 100."""
  rng = np.random.default_rng(0)
  images = rng.normal(size=(5000, 11)).astype(np.float32)
  texts = (images[COCO_OWNER] + rng.normal(size=(25000, 11))).astype(np.float32)
  return images, texts


def test_all_equals_the_oracle_with_ragged_owners():
  rng = np.random.default_rng(1)
  images = rng.integers(-2, 3, size=(11, 3)).astype(np.float64)
  texts = rng.integers(-2, 3, size=(29, 3)).astype(np.float64)
  owner = rng.integers(0, 11, size=29)
  similarity = oracle.similarity_of(images.tolist(), texts.tolist())
  for ties in ('expected', 'pessimistic', 'optimistic'):
    found = evaluate(images, texts, owner, ties=ties, chunk=4)
    expected = oracle.metrics_of(similarity, owner.tolist(), ties)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      assert found[key] == pytest.approx(value, rel=1e-12), key


def test_coco_1k_is_the_mean_of_five_separate_folds(coco):
  images, texts = coco
  found = evaluate(images, texts, COCO_OWNER, protocol='coco_1k')
  folds = []
  for fold in range(5):
    rows, columns = slice(1000 * fold, 1000 * (fold + 1)), slice(5000 * fold, 5000 * (fold + 1))
    folds.append(evaluate(images[rows], texts[columns], np.arange(5000) // 5))
    assert found[f'fold_{fold}/rsum'] == folds[fold]['rsum']
  assert len({fold['rsum'] for fold in folds}) == 5
  for key in folds[0]:
    assert found[key] == pytest.approx(np.mean([fold[key] for fold in folds]), rel=1e-12), key
  recalls = [found[f'{direction}/{key}'] for direction in ('i2t', 't2i') for key in ('r1', 'r5', 'r10')]
  assert found['rsum'] == pytest.approx(sum(recalls))


def test_coco_gives_both_protocols_and_5k_is_harder(coco):
  images, texts = coco
  order = np.random.default_rng(2).permutation(25000)  # captions in any order belong to the fold of their image
  both = evaluate(images, texts[order], COCO_OWNER[order], protocol='coco', chunk=997)
  parts = {name: evaluate(images, texts, COCO_OWNER, protocol=name) for name in ('coco_1k', 'coco_5k')}
  assert both.keys() == {f'{name}/{key}' for name, part in parts.items() for key in part}
  for name, part in parts.items():
    for key, value in part.items():
      assert both[f'{name}/{key}'] == pytest.approx(value, rel=1e-4), (name, key)
  assert parts['coco_5k'] == evaluate(images, texts, COCO_OWNER)
  assert both['coco_5k/rsum'] < both['coco_1k/rsum']


def test_a_collapsed_encoder_gets_chance_not_everything():
  chance = retrieval_metrics(ChanceScores((1000, 5000)).ranks(COCO_OWNER[:5000]))
  found = evaluate(np.ones((5000, 2)), np.ones((25000, 2)), COCO_OWNER, protocol='coco_1k')
  assert found['t2i/r1'] == pytest.approx(0.1)
  assert found['rsum'] == pytest.approx(chance['rsum'])
  assert found['rsum'] < 4


@pytest.mark.parametrize('protocol', ['coco', 'coco_1k', 'coco_5k'])
def test_coco_protocols_refuse_other_sets(protocol):
  small, owner = np.ones((7, 2)), np.arange(35) // 5
  with pytest.raises(UserError, match='5000 images with 5 captions each, found 7 images and 35 captions'):
    evaluate(small, np.ones((35, 2)), owner, protocol=protocol)
  uneven = COCO_OWNER.copy()
  uneven[17] = 0
  with pytest.raises(UserError, match='found 6 captions for image 0'):
    evaluate(np.ones((5000, 2)), np.ones((25000, 2)), uneven, protocol=protocol)


def test_bad_input_raises():
  with pytest.raises(UserError, match="all, coco_5k, coco_1k, coco, found 'flickr'"):
    evaluate(np.eye(3), np.eye(3), np.arange(3), protocol='flickr')
  with pytest.raises(ValueError, match='owner must lie'):
    evaluate(np.eye(3), np.eye(3), np.arange(3) + 1)
  images = np.eye(3)
  images[1, 2] = np.nan
  with pytest.raises(FloatingPointError, match='image 1 and text 0 is nan'):
    evaluate(images, np.eye(3), np.arange(3))


def test_averaged_scores_are_concatenated_embeddings():
  rng = np.random.default_rng(3)
  (a, b), owner = rng.normal(size=(2, 13, 5)), np.arange(39) // 3
  (c, d) = rng.normal(size=(2, 39, 5))
  similarity = (a @ c.T + b @ d.T) / 2
  found = evaluate(np.concatenate([a, b], axis=-1) / 2, np.concatenate([c, d], axis=-1), owner)
  assert found == pytest.approx(oracle.metrics_of(similarity.tolist(), owner.tolist()))


def test_table_has_the_lines_that_people_grep():
  metrics = {'i2t/r1': 83.25, 'i2t/r5': 96.0, 'i2t/r10': 100.0, 'i2t/median_rank': 1.0, 'i2t/mean_rank': 1.9}
  metrics |= {'t2i/r1': 63.5, 't2i/r5': 87.1, 't2i/r10': 92.4, 't2i/median_rank': 1.0, 't2i/mean_rank': 12.5}
  metrics |= {'rsum': 522.3}
  assert format_table(metrics).split('\n') == [
    '                   R@1     R@5    R@10    medR   meanR',
    'Image to text:    83.2    96.0   100.0     1.0     1.9',
    'Text to image:    63.5    87.1    92.4     1.0    12.5',
    'rSum:            522.3',
  ]
  before = metrics | {'i2t/r1': 70.0, 't2i/median_rank': 3.0, 'rsum': 500.0}
  assert format_table(metrics, {'rsum': 7.0}, before).split('\n')[1:] == [
    'Image to text:    83.2    96.0   100.0     1.0     1.9',
    'zero-shot:        70.0    96.0   100.0     1.0     1.9',
    'Text to image:    63.5    87.1    92.4     1.0    12.5',
    'zero-shot:        63.5    87.1    92.4     3.0    12.5',
    'rSum:            522.3',
    'zero-shot:       500.0',
    'by chance:         7.0',
  ]


def test_table_of_both_protocols_has_headings_and_folds(coco):
  lines = format_table(evaluate(*coco, COCO_OWNER, protocol='coco')).split('\n')
  assert [line for line in lines if line.startswith('COCO')] == ['COCO 1K (mean of five folds)', 'COCO 5K']
  assert sum(line.startswith('rSum:') for line in lines) == 2
  assert [len(line.split()) for line in lines if line.startswith('rSum of folds:')] == [3 + 5]
