"""The user's door: shapes, order, ragged lists, sizes of batches, other devices, mistakes."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import synthetic
from numpy.testing import assert_allclose, assert_array_equal

import hrem_jax
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError
from hrem_jax.retrieval.evaluation import evaluate_best, load_member
from hrem_jax.retrieval.run import restore_variables

SIZE = synthetic.REGION_SIZE


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('matcher')
  synthetic.write_data_set(folder / 'data')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  return folder


@pytest.fixture(scope='module')
def matcher(folder):
  return hrem_jax.restore(folder / 'run')


@pytest.fixture(scope='module')
def ragged():
  rng = np.random.default_rng(0)
  return [rng.normal(size=(count, SIZE)).astype(np.float32) for count in (5, 1, 7, 3, 2)]


def test_embeddings_are_those_of_the_evaluation(folder, matcher):
  member = load_member(folder / 'run')
  regions, mask = member.split.features.rows(np.arange(13))
  images, texts = matcher.encode_images(regions, mask), matcher.encode_texts(member.split.captions)
  assert images.shape == (13, 32)
  assert texts.shape == (65, 32)
  assert images.dtype == texts.dtype == np.float32
  assert_allclose(images, member.scores.images, atol=1e-6)
  assert_allclose(texts, member.scores.texts, atol=1e-6)
  assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
  assert_allclose(matcher.similarity(regions, member.split.captions), images @ texts.T, atol=1e-6)


def test_ragged_lists_are_arrays_with_masks(matcher, ragged):
  regions, mask = np.full((5, 7, SIZE), np.nan, np.float32), np.zeros((5, 7), bool)  # junk in the padding
  for row, image in enumerate(ragged):
    regions[row, : len(image)], mask[row, : len(image)] = image, True
  expected = matcher.encode_images(ragged)
  assert expected.shape == (5, 32)
  assert_array_equal(matcher.encode_images(regions, mask), expected)
  scattered = mask[:, ::-1]  # real regions at the end of each row
  assert_array_equal(
    matcher.encode_images(regions[:, ::-1], scattered), matcher.encode_images([x[::-1] for x in ragged])
  )


def test_order_is_kept_and_batch_mates_do_not_matter(matcher, ragged):
  many = ragged * 9  # 45 images and 45 texts: three chunks of 16
  texts = ['a dog', 'a cat and a dog near the tree', 'boat', '', 'a zebra'] * 9
  for encode, items in ((matcher.encode_images, many), (matcher.encode_texts, texts)):
    together, alone = encode(items), np.concatenate([encode(items[row : row + 1]) for row in range(5)])
    assert together.shape == (45, 32)
    assert_allclose(together, np.tile(alone, (9, 1)), atol=1e-5)
    assert_allclose(encode(items[::-1]), together[::-1], atol=1e-5)


def test_equal_sentences_have_equal_embeddings_to_the_last_bit(matcher):
  embeddings = matcher.encode_texts(['a dog', *(f'{word} and boat' for word in synthetic.WORDS * 3), 'a dog'])
  assert_array_equal(embeddings[0], embeddings[-1])


def test_a_very_long_sentence_is_cut(matcher):
  long, longer = (' '.join(['dog'] * count) for count in (10, 400))  # the widest bucket holds 12 with start and end
  assert_allclose(*matcher.encode_texts([long, longer]), atol=1e-6)


def test_any_column_of_sentences_is_a_list(matcher):
  texts = ['a dog', 'a cat and a boat', 'bird']
  for column in (tuple(texts), np.array(texts), np.array(texts, object)):
    assert_array_equal(matcher.encode_texts(column), matcher.encode_texts(texts))


def test_nothing_gives_nothing(matcher):
  assert matcher.encode_images([]).shape == matcher.encode_texts([]).shape == (0, 32)
  assert matcher.similarity([], ['a dog']).shape == (0, 1)


def test_evaluation_of_a_folder_and_of_a_split(folder, matcher):
  _, metrics = evaluate_best(folder / 'run')
  data = folder / 'data' / 'tiny_precomp'
  assert matcher.evaluate(data) == matcher.evaluate(str(data)) == metrics
  assert matcher.evaluate(load_split(data, 'dev')) == matcher.evaluate(data, split='dev')
  assert matcher.evaluate(data, split='dev') != metrics


def test_step_and_variables_are_those_of_the_checkpoint(folder, matcher):
  assert matcher.step == 12
  stored = restore_variables(folder / 'run', 12)
  jax.tree.map(assert_array_equal, stored, jax.device_get(matcher.variables))
  assert hrem_jax.restore(str(folder / 'run'), step=12).step == 12
  with pytest.raises(UserError, match='run: no checkpoint of step 5, there are 12; '):
    hrem_jax.restore(folder / 'run', step=5)


def test_other_devices_than_those_that_wrote(folder, matcher, tmp_path):
  code = (
    'import hrem_jax, jax, numpy as np, sys\nassert jax.device_count() == 4\n'
    'matcher = hrem_jax.restore(sys.argv[1])\n'
    f'images = matcher.encode_images(np.ones((3, 2, {SIZE}), np.float32) * np.arange(1, 4)[:, None, None])\n'
    'np.savez(sys.argv[2], images=images, texts=matcher.encode_texts(["a dog", "a cat", "a boat near a tree"] * 7))'
  )
  environment = os.environ | {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(pathlib.Path(__file__).parents[2]),
  }
  command = [sys.executable, '-c', code, str(folder / 'run'), str(tmp_path / 'four.npz')]
  result = subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True, text=True)
  assert 'WARNING' not in result.stderr  # of Orbax, about our use of it
  four = np.load(tmp_path / 'four.npz')
  images = matcher.encode_images(np.ones((3, 2, SIZE), np.float32) * np.arange(1, 4)[:, None, None])
  assert_allclose(four['images'], images, atol=1e-5)
  assert_allclose(four['texts'], matcher.encode_texts(['a dog', 'a cat', 'a boat near a tree'] * 7), atol=1e-5)


GOOD = np.ones((2, 3, SIZE), np.float32)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda m: m.encode_texts('a dog'), 'wants a list of strings, found one string'),
    (lambda m: m.encode_texts(np.array('a dog')), 'wants a list of strings, found one string'),
    (lambda m: m.encode_texts(['a dog', 3]), 'found 3 at position 1'),
    (lambda m: m.encode_texts(np.array([['a dog']])), r"found \['a dog'\] at position 0"),
    (lambda m: m.encode_texts(3), 'wants a list of strings, found int'),
    (lambda m: m.encode_texts(None), 'wants a list of strings, found NoneType'),
    (lambda m: m.encode_texts(text for text in ['a dog']), 'wants a list of strings, found generator'),
    (lambda m: m.similarity(GOOD, 'a dog'), 'wants a list of strings, found one string'),
    (lambda m: m.encode_images(GOOD[..., :-1]), r'image 0 has shape \(3, 12\), expected \(regions, 13\)'),
    (lambda m: m.encode_images([GOOD[0], GOOD[0, :0]]), r'image 1 has shape \(0, 13\)'),
    (lambda m: m.encode_images(GOOD, np.array([[True] * 3, [False] * 3])), r'image 1 has shape \(0, 13\)'),
    (lambda m: m.encode_images(GOOD, np.ones((2, 3))), r'mask is float64 \(2, 3\), expected bool \(2, 3\)'),
    (lambda m: m.encode_images(GOOD, np.ones((2, 4), bool)), r'mask is bool \(2, 4\), expected bool \(2, 3\)'),
    (lambda m: m.encode_images([*GOOD], np.ones((2, 3), bool)), 'a mask is for one array: leave it out with a list'),
    (lambda m: m.encode_images([GOOD[0], GOOD[1] * np.nan]), '^image 1 holds NaN or infinity$'),
    (lambda m: m.encode_images([GOOD[0], GOOD[1].astype(int)]), '^image 1 is int64, expected floats$'),
    (lambda m: m.encode_images(3), r'one array \(images, regions, 13\) or a list of arrays \(regions, 13\), found int'),
    (lambda m: m.encode_images(iter(GOOD)), 'encode_images wants .*, found '),
    (lambda m: m.evaluate('nowhere'), 'test_ims.npy and test_caps.txt not found'),
    (lambda m: hrem_jax.restore('nowhere'), 'nowhere/config.json: no such file'),
  ],
)
def test_mistakes(matcher, call, message):
  with pytest.raises(UserError, match=message):
    call(matcher)


def test_importing_the_package_does_not_load_jax():
  code = 'import sys, hrem_jax; assert "jax" not in sys.modules'
  root = str(pathlib.Path(__file__).parents[2])
  subprocess.run([sys.executable, '-c', code], env=os.environ | {'PYTHONPATH': root}, check=True, timeout=60)
