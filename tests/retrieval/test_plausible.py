"""Plausible matches: beside slow loops and the function of the package `eccv-caption`, and the file of labels."""

import importlib.util
import re
import warnings

import numpy as np
import pytest

from hrem_jax.errors import UserError
from hrem_jax.retrieval.plausible import num_differences, plausible_metrics, read_class_labels
from hrem_jax.retrieval.scores import DotScores


def metrics_of(images, texts, owner, labels, **options):
  return plausible_metrics(DotScores(images, texts), owner, labels, **options)


@pytest.fixture
def data():
  """Seventeen images with up to four of five classes; one has no caption."""
  rng = np.random.default_rng(0)
  labels = rng.random((17, 5)) < 0.3
  owner = np.repeat(np.arange(16), 3)[:47]
  return rng.normal(size=(17, 7)), rng.normal(size=(47, 7)), owner, labels


def loops(scores, asking, asked):
  """The definition: for each z, each query's share of right ones among its first R."""
  by_z = []
  for most in (0, 1, 2):
    values = []
    for query, classes in enumerate(asking):
      right = {other for other, theirs in enumerate(asked) if (classes != theirs).sum() <= most}
      if right:
        order = sorted(range(len(asked)), key=lambda other, row=scores[query]: -row[other])
        values.append(len(right & set(order[: len(right)])) / len(right))
    by_z.append(sum(values) / len(values))
  return 100 * sum(by_z) / 3


def test_slow_loops(data):
  images, texts, owner, labels = data
  assert 0 < (~labels.any(1)).sum() < 8  # those without a class take no part
  rows, columns = labels.any(1), labels[owner].any(1)
  scores, of_texts = images[rows] @ texts[columns].T, labels[owner[columns]]
  found = metrics_of(*data, chunk=5)
  assert found == pytest.approx(
    {
      'pm/i2t/r_precision': loops(scores, labels[rows], of_texts),
      'pm/t2i/r_precision': loops(scores.T, of_texts, labels[rows]),
    }
  )
  assert all(10 < value < 90 for value in found.values())


@pytest.mark.skipif(not importlib.util.find_spec('eccv_caption'), reason='needs eccv-caption')
def test_the_packages_r_precision(data):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # it misses ujson
    from eccv_caption._metrics import compute_rprecision

  images, texts, owner, labels = data
  labels[:, 4] = True  # then everything takes part
  differences = num_differences(labels[owner], labels)
  retrieved = dict(enumerate(np.argsort(-(texts @ images.T), axis=1).tolist()))
  values = [
    compute_rprecision(retrieved, {text: np.flatnonzero(row <= most).tolist() for text, row in enumerate(differences)})
    for most in (0, 1, 2)
  ]
  assert metrics_of(*data)['pm/t2i/r_precision'] == pytest.approx(100 * np.mean(values))


def test_ties_by_hand():
  """Two images alike in classes, one not; everything scores the same."""
  labels = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], bool)
  alike = np.ones((3, 2)), np.ones((3, 2)), np.arange(3), labels
  expected = 100 * (2 / 3 + 2 / 3 + 1 / 3) / 3
  assert metrics_of(*alike) == pytest.approx({f'pm/{way}/r_precision': expected for way in ('i2t', 't2i')})
  assert metrics_of(*alike, ties='optimistic')['pm/i2t/r_precision'] == 100
  assert metrics_of(*alike, ties='pessimistic')['pm/i2t/r_precision'] == pytest.approx(100 * (1 / 2 + 1 / 2) / 3)


def test_the_file_of_labels(tmp_path):
  path = tmp_path / 'labels.tsv'
  path.write_text('9\tcat, traffic light\nzebra.jpg\t\n4\tdog,cat\n8\thorse\n', encoding='utf-8')
  labels = read_class_labels(path, ['4', 'zebra.jpg', '9'])
  assert labels.dtype == bool
  np.testing.assert_array_equal(labels, [[1, 1, 0], [0, 0, 0], [1, 0, 1]])  # cat, dog, traffic light
  assert num_differences(labels, labels).tolist() == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'4\tdog\n9 cat\n', "line 2 is '9 cat', expected an image id, a tab, and classes with commas"),
    (b'4\tdog\n\tcat\n', 'line 2 is .* expected an image id, a tab'),
    (b'4\tdog\n9\tcat\n4\tcat\n', "line 3: image '4' for the second time"),
    (b'4\tdog\n', "no line for 1 of 2 images, the first is '9'; expected are the ids of SPLIT_ids.txt"),
    (b'4\tdog\n9\t\xff\n', 'cannot be read as class labels'),
    (b'4\t\n9\t,\n5\tdog\n', 'no class for any of the 2 images'),
    (None, 'cannot be read as class labels'),
  ],
)
def test_labels_that_do_not_fit(tmp_path, content, message):
  path = tmp_path / 'labels.tsv'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=re.escape(f'{path}: ') + message):
    read_class_labels(path, ['4', '9'])
