"""What a training sees by chance, measured over 10,000 draws and more, beside what METHOD section 5 says.

Bounds are five standard deviations of what is measured.
"""

import numpy as np
import pytest
import scipy.stats
import synthetic

from hrem_jax.data.augmentation import change_words, drop_regions, example_rng
from hrem_jax.data.samplers import ShuffledSampler

DRAWS = 10_000
REGIONS = 36
VOCABULARY, MASK = 50, 1
PIECES = np.array([100, 101, 102], np.int32)  # of one word; not below VOCABULARY: what is, was put there


def assert_share(found, expected: float, count: int) -> None:
  """Each of `found` is a share of `count` independent events of probability `expected`."""
  assert np.abs(np.asarray(found) - expected).max() <= 5 * np.sqrt(expected * (1 - expected) / count)


def assert_independent(columns: np.ndarray) -> None:
  assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 5 / np.sqrt(len(columns))


# --- batches ----------------------------------------------------------------------------------------------------------

CAPTIONS, BATCH, STEPS = 30_000, 64, 468  # Flickr8K's: five captions an image


@pytest.fixture(scope='module')
def epochs() -> np.ndarray:
  """The captions of four epochs, `[epoch, step, row]`."""
  sampler = ShuffledSampler(CAPTIONS, BATCH, seed=0)
  assert sampler.steps_per_epoch == STEPS
  return np.array([[sampler.batch(STEPS * epoch + step)[1] for step in range(STEPS)] for epoch in range(4)])


def test_an_epoch_is_every_caption_once_but_for_the_last_partial_batch_which_is_another_each_time(epochs):
  seen = [set(captions) for captions in epochs.reshape(4, -1).tolist()]
  assert [len(captions) for captions in seen] == [STEPS * BATCH] * 4
  left_out = [set(range(CAPTIONS)) - captions for captions in seen]
  assert [len(captions) for captions in left_out] == [48] * 4
  assert all(len(one & other) < 5 for i, one in enumerate(left_out) for other in left_out[:i])  # expected: 0.08
  counts = np.bincount(epochs[0].ravel() // 5)
  assert (len(counts), counts.max()) == (CAPTIONS // 5, 5)  # an image comes five times


def test_an_image_stands_twice_in_a_batch_as_often_as_chance_says(epochs):
  """Two captions are of one image with probability 4 / 29,999: 0.27 of the 2,016 pairs of a batch."""
  images = np.sort(epochs.reshape(-1, BATCH) // 5, axis=1)
  pairs = np.array([np.sum(counts * (counts - 1) // 2) for counts in (np.bincount(row) for row in images)])
  expected = BATCH * (BATCH - 1) / 2 * 4 / (CAPTIONS - 1)
  assert abs(pairs.mean() - expected) < 5 * np.sqrt(expected / len(pairs))
  assert_share(np.mean(pairs > 0), 1 - np.exp(-expected), len(pairs))


def test_the_order_is_random_within_an_epoch_and_from_one_to_the_next(epochs):
  captions = epochs.reshape(4, -1)
  assert_independent(np.column_stack([np.arange(captions.shape[1]), captions.T]))
  # Captions of one image, neighbours in the files, are none in the batches.
  assert abs(np.corrcoef(captions[0, 1:], captions[0, :-1])[0, 1]) < 5 / np.sqrt(captions.shape[1])


# --- regions ----------------------------------------------------------------------------------------------------------


def kept_regions(num_regions: int, probability: float = 0.2) -> np.ndarray:
  mask = np.ones(num_regions, bool)
  return np.stack([drop_regions(mask, example_rng(0, 0, index), probability) for index in range(DRAWS)])


def test_each_region_is_left_out_with_probability_0_2_whatever_becomes_of_the_others():
  kept = kept_regions(REGIONS)
  assert_share(kept.mean(axis=0), 0.8, DRAWS)
  assert_share(kept.mean(), 0.8, kept.size)
  assert_independent(kept)
  assert abs(kept.sum(axis=1).var() / (REGIONS * 0.8 * 0.2) - 1) < 5 * np.sqrt(2 / DRAWS)  # of a binomial distribution


def test_one_region_stays_where_all_would_go_and_each_as_often():
  kept = kept_regions(2)
  assert kept.any(axis=1).all()
  assert_share(np.mean(kept.sum(axis=1) == 1), 2 * 0.2 * 0.8 + 0.2**2, DRAWS)
  assert_share(kept.mean(axis=0), 0.8 + 0.2**2 / 2, DRAWS)
  assert kept_regions(1, probability=0.999).all()


# --- words ------------------------------------------------------------------------------------------------------------


def fates(*, mask_token: int | None = MASK) -> dict[str, float]:
  """Shares of what becomes of a word of three pieces; no piece of it ever has another fate than the others."""
  counts = dict(stays=0, masked=0, replaced=0, deleted=0)
  for index in range(DRAWS):
    rng = example_rng(0, 0, index)
    pieces = change_words(PIECES, np.zeros(3, int), rng, 0.2, mask_token=mask_token, vocab_size=VOCABULARY).tolist()
    if pieces == PIECES.tolist():
      counts['stays'] += 1
    elif not pieces:
      counts['deleted'] += 1
    elif pieces == [mask_token] * 3:
      counts['masked'] += 1
    else:
      assert len(pieces) == 3
      assert max(pieces) < VOCABULARY
      counts['replaced'] += 1
  return {name: count / DRAWS for name, count in counts.items()}


@pytest.mark.parametrize(
  ('mask_token', 'expected'),
  [
    (MASK, dict(stays=0.8, masked=0.1, replaced=0.02, deleted=0.08)),
    (None, dict(stays=0.8, masked=0.0, replaced=0.02, deleted=0.18)),
  ],
  ids=['with a mask', 'without'],
)
def test_a_word_is_hit_with_all_its_pieces_half_masked_a_tenth_replaced_the_rest_deleted(mask_token, expected):
  for fate, share in fates(mask_token=mask_token).items():
    assert_share(share, expected[fate], DRAWS)


def test_random_tokens_are_of_the_whole_vocabulary_and_drawn_anew_for_each_piece():
  drawn = []
  for index in range(DRAWS):
    tokens = change_words(PIECES, np.zeros(3, int), example_rng(0, 0, index), 1.0, mask_token=-1, vocab_size=VOCABULARY)
    if len(tokens) and tokens[0] >= 0:
      drawn.append(tokens)
  assert_share(len(drawn) / DRAWS, 0.1, DRAWS)
  drawn = np.array(drawn)
  assert scipy.stats.chisquare(np.bincount(drawn.ravel(), minlength=VOCABULARY)).pvalue > 1e-4
  assert_independent(drawn)


def test_words_are_hit_independently():
  tokens, words = np.arange(100, 120, dtype=np.int32), np.arange(20)
  change = lambda rng: change_words(tokens, words, rng, 0.2, mask_token=MASK, vocab_size=VOCABULARY)  # noqa: E731
  stays = np.array([np.isin(tokens, change(example_rng(0, 0, index))) for index in range(DRAWS)])
  assert_share(stays.mean(axis=0), 0.8, DRAWS)
  assert_independent(stays)


def test_start_and_end_are_never_hit(tmp_path):
  tiny = synthetic.load_training_split(tmp_path)
  batches, tokenizer = synthetic.make_batches(tiny, **{'data.drop_words': 1.0, 'data.pack': False}), tiny[-1]
  for step in range(12):
    batch = batches.batch(step)
    rows = [row[mask] for row, mask in zip(batch.texts.tokens, batch.texts.mask, strict=True)]
    assert all((row[0], row[-1]) == (tokenizer.start, tokenizer.end) for row in rows)
    assert min(len(row) for row in rows) >= 2
