"""Packed rows by hand: who sees whom, where captions start, and the way back with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from hrem_jax.ops.packing import Packing, attention_mask, caption_starts, unpack

GROUP_SIZE = 10  # two rows of five words

# Two groups of three captions. First group: captions 1 and 0 in its first row, 2 in its second after a gap.
PACKING = Packing(
  captions=np.array([[1, 1, 0, 0, 0], [-1, 2, 2, 2, -1], [0, 0, 0, 0, 2], [1, 1, -1, -1, -1]]),
  positions=np.array([[0, 1, 0, 1, 2], [0, 0, 1, 2, 0], [0, 1, 2, 3, 0], [0, 1, 0, 0, 0]]),
  index=np.array([[[2, 3, 4, 10], [0, 1, 10, 10], [6, 7, 8, 10]], [[0, 1, 2, 3], [5, 6, 10, 10], [4, 10, 10, 10]]]),
  mask=np.array([[[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]], bool),
)


def test_words_see_their_own_caption():
  seen = np.asarray(attention_mask(PACKING.captions >= 0, PACKING))
  assert seen.shape == (4, 5, 5)
  for row, captions in enumerate(PACKING.captions):
    for asker in range(5):
      for asked in range(5):
        assert seen[row, asker, asked] == (captions[asker] == captions[asked])


def test_without_packing_a_row_is_a_caption():
  mask = np.arange(5) < np.array([[5], [2], [3]])
  seen = np.asarray(attention_mask(mask, None))
  assert seen.shape == (3, 1, 5)
  np.testing.assert_array_equal(seen[:, 0], mask)


def test_starts_for_both_directions():
  expected = [[1, 0, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 0]]
  np.testing.assert_array_equal(caption_starts(PACKING), np.array(expected, bool))
  expected = [[0, 1, 0, 0, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 1, 0, 0, 1]]
  np.testing.assert_array_equal(caption_starts(PACKING, reverse=True), np.array(expected, bool))


def test_a_row_of_one_caption_starts_at_its_ends_only():
  """The first and the last word are neighbours for `roll`."""
  packing = PACKING.replace(captions=np.zeros((2, 3), int), positions=np.zeros((2, 3), int))
  np.testing.assert_array_equal(caption_starts(packing), [[True, False, False]] * 2)
  np.testing.assert_array_equal(caption_starts(packing, reverse=True), [[False, False, True]] * 2)


def unpack_slowly(rows):
  captions = np.zeros((6, 4, rows.shape[-1]), rows.dtype)
  for row in range(4):
    for place in range(5):
      caption = PACKING.captions[row, place]
      if caption >= 0:
        captions[(row // 2) * 3 + caption, PACKING.positions[row, place]] = rows[row, place]
  return captions


def test_unpacking_puts_every_word_at_its_position(dtype):
  rows = np.random.default_rng(0).normal(size=(4, 5, 7)).astype(dtype)
  words = unpack(jnp.asarray(rows), PACKING)
  assert words.shape == (6, 4, 7)
  assert words.dtype == dtype
  np.testing.assert_array_equal(words, unpack_slowly(rows))
  assert not np.asarray(words)[~PACKING.mask.reshape(6, 4)].any()


def test_junk_in_padding_goes_nowhere_and_gets_no_gradient():
  rng = np.random.default_rng(1)
  rows, weights = rng.normal(size=(4, 5, 7)).astype(np.float32), rng.normal(size=(6, 4, 7)).astype(np.float32)
  padding = PACKING.captions < 0
  rows[padding] = np.nan
  words = np.asarray(unpack(jnp.asarray(rows), PACKING))
  assert np.isfinite(words).all()
  gradient = np.asarray(jax.grad(lambda rows: jnp.sum(weights * unpack(rows, PACKING)))(jnp.asarray(rows)))
  assert gradient.shape == rows.shape
  assert not gradient[padding].any()
  assert_allclose(unpack_slowly(gradient), np.where(PACKING.mask.reshape(6, 4, 1), weights, 0))
