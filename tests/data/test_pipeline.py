import json

import jax
import numpy as np
import pytest
import synthetic

from hrem_jax.data.augmentation import change_words, drop_regions, example_rng
from hrem_jax.data.pipeline import bucket_for, image_chunks, pad_tokens, read_ahead, text_chunks
from hrem_jax.data.tokenizer import TokenizedCaptions, build_vocabulary
from hrem_jax.errors import UserError


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  return synthetic.load_training_split(tmp_path_factory.mktemp('tiny'))


def assert_batches_equal(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    np.testing.assert_array_equal(one, other)


def test_an_epoch_holds_every_caption_once_and_epochs_differ(tiny):
  sampler = synthetic.make_batches(tiny).sampler
  assert sampler.steps_per_epoch == 200 // 16
  epochs = [np.concatenate([sampler.batch(epoch * 12 + position)[1] for position in range(12)]) for epoch in range(3)]
  for order in epochs:
    assert len(set(order.tolist())) == 12 * 16
  assert (epochs[0] != epochs[1]).mean() > 0.9
  assert (epochs[1] != epochs[2]).mean() > 0.9
  assert [sampler.batch(step)[0] for step in (0, 11, 12, 24)] == [0, 0, 1, 2]


def test_without_augmentation_a_batch_is_what_the_files_say(tiny):
  _, split, tokenized, tokenizer = tiny
  batches = synthetic.make_batches(tiny, **{'data.pack': False, 'data.drop_words': 0.0, 'data.drop_regions': 0.0})
  batch = batches.batch(3)
  _, captions = batches.sampler.batch(3)
  assert batch.texts.tokens.shape[1] in (8, 12)
  np.testing.assert_array_equal(batch.image_ids, split.owner[captions])
  np.testing.assert_array_equal(batch.images.regions, split.features.rows(split.owner[captions])[0])
  for row, caption in enumerate(captions):
    expected = [tokenizer.start, *tokenized.caption(caption)[0], tokenizer.end]
    assert batch.texts.tokens[row][batch.texts.mask[row]].tolist() == expected


def test_a_batch_depends_on_seed_and_step_alone(tiny):
  first = synthetic.make_batches(tiny)
  for step in (0, 5, 12):
    assert_batches_equal(first.batch(step), synthetic.make_batches(tiny).batch(step))
  other_seed = synthetic.make_batches(tiny, **{'training.seed': 1}).batch(5)
  assert (other_seed.image_ids != first.batch(5).image_ids).any()
  # The same captions in another epoch are augmented anew.
  assert (first.batch(0).images.mask != first.batch(12).images.mask).any()


@pytest.mark.parametrize('pack', [False, True])
def test_processes_share_a_batch(tiny, pack):
  options = {'num_devices': 8, 'data.pack': pack}
  whole = synthetic.make_batches(tiny, **options).batch(7)
  parts = [synthetic.make_batches(tiny, process=(index, 4), **options).batch(7) for index in range(4)]
  assert parts[0].image_ids.shape == (4,)
  assert 4 * parts[0].texts.tokens.shape[0] == whole.texts.tokens.shape[0]
  assert_batches_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), whole)


def test_reading_ahead_restores_its_position(tiny):
  batches = synthetic.make_batches(tiny)
  iterator = read_ahead(batches, 30)
  for _ in range(13):
    next(iterator)
  position = json.loads(json.dumps(iterator.get_state()))  # as a checkpoint keeps it
  again = read_ahead(batches, 30)
  again.set_state(position)
  for step in (13, 14):
    assert_batches_equal(next(again), batches.batch(step))
  assert len(list(again)) == 15


def test_buckets_and_cutting(tiny):
  tokenizer = tiny[3]
  assert [bucket_for(length, (8, 12)) for length in (3, 8, 9, 12, 40)] == [8, 8, 12, 12, 12]
  tokens, mask = pad_tokens([np.arange(10, 13), np.arange(10, 30)], 6, tokenizer)
  assert tokens.tolist() == [[1, 10, 11, 12, 2, 0], [1, 10, 11, 12, 13, 2]]
  assert mask.tolist() == [[True] * 5 + [False], [True] * 6]


def test_chunks_hold_everything_once(tiny):
  _, split, tokenized, tokenizer = tiny
  chunks = image_chunks(split.features, 16)
  seen = [index for index, images in chunks if len(images.regions) == len(images.mask) == 16]
  np.testing.assert_array_equal(np.concatenate(seen), np.arange(40))
  seen = []
  for index, texts in text_chunks(tokenized, tokenizer, 32, max_width=12):
    assert texts.tokens.shape == texts.mask.shape == (32, texts.tokens.shape[1])
    np.testing.assert_array_equal(texts.mask.sum(1)[: len(index)], tokenized.lengths[index])
    seen.append(index)
  assert sorted(np.concatenate(seen).tolist()) == list(range(200))


def test_chunks_of_texts_have_few_widths_and_next_to_no_padding():
  lengths = np.clip(np.random.default_rng(0).gamma(11.0, 1.3, 5000).round(), 3, 70).astype(int)
  offsets = np.concatenate([[0], np.cumsum(lengths - 2)])
  tokenized = TokenizedCaptions(np.zeros(offsets[-1], np.int32), np.zeros(offsets[-1], np.int32), offsets)
  tokenizer = build_vocabulary(['a dog'])
  chunks = list(text_chunks(tokenized, tokenizer, 128, max_width=24))
  masks = [texts.mask for _, texts in chunks]
  assert {mask.shape[1] for mask in masks} == {8, 12, 16, 20, 24}  # what is longer is cut
  places, words = sum(mask.size for mask in masks), sum(mask.sum() for mask in masks)
  assert words == np.minimum(lengths, 24).sum()
  assert words / places > 0.85


def test_too_few_captions_for_a_batch(tiny):
  with pytest.raises(UserError, match='batch_size is 300, but there are only 200 captions'):
    synthetic.make_batches(tiny, **{'training.batch_size': 300})


def test_dropped_regions_have_the_right_share_and_one_stays():
  mask = np.arange(11) < 7
  kept = np.stack([drop_regions(mask, example_rng(0, 0, index), 0.2) for index in range(3000)])
  assert not kept[:, 7:].any()
  # 21,000 draws: five standard deviations of the share are 0.014
  assert abs(kept[:, :7].mean() - 0.8) < 0.014
  nearly_all = np.stack([drop_regions(mask, example_rng(0, 1, index), 0.999) for index in range(50)])
  assert nearly_all.any(axis=1).all()


def test_changed_words_have_the_right_shares_and_stay_whole():
  tokens = np.arange(100, 112, dtype=np.int32)
  words = np.array([0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 7])  # 12 pieces of 8 words
  counts = dict(masked=0, replaced=0, deleted=0)
  for index in range(4000):
    changed = change_words(tokens, words, example_rng(0, 0, index), 0.2, mask_token=1, vocab_size=50)
    assert changed.dtype == np.int32
    kept = set(changed[changed >= 100].tolist())
    for word in range(8):
      pieces = set(tokens[words == word].tolist())
      assert pieces <= kept or not pieces & kept, 'a word is hit with all its pieces'
    counts['masked'] += (changed == 1).sum()
    counts['replaced'] += ((changed < 50) & (changed != 1)).sum()
    counts['deleted'] += 12 - len(changed)
  shares = {name: count / (4000 * 12) for name, count in counts.items()}
  # One in fifty random tokens is the mask's number: within the bounds.
  assert abs(shares['masked'] - 0.1) < 0.01
  assert abs(shares['replaced'] - 0.02) < 0.005
  assert abs(shares['deleted'] - 0.08) < 0.01


def test_no_augmentation_and_empty_captions():
  tokens, words = np.array([7, 8], np.int32), np.array([0, 1])
  assert change_words(tokens, words, example_rng(0, 0, 0), 0.0, mask_token=1, vocab_size=9).tolist() == [7, 8]
  assert len(change_words(tokens[:0], words[:0], example_rng(0, 0, 0), 0.5, mask_token=1, vocab_size=9)) == 0
