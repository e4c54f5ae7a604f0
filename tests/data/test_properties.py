"""Readers, samplers and the cache of tokens for anything that they can be given."""

import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hrem_jax.data.captions import read_lines
from hrem_jax.data.features import RegionFeatures
from hrem_jax.data.precomputed import load_split
from hrem_jax.data.samplers import ShuffledSampler
from hrem_jax.data.token_cache import cached_tokens
from hrem_jax.data.tokenizer import build_vocabulary, from_json, tokenize
from hrem_jax.errors import UserError

# Every character that UTF-8 can write; a line ends with \n alone, whatever else Unicode takes for an end of line.
TEXT = st.text(st.characters(exclude_categories=('Cs',), exclude_characters='\n'), max_size=20)
WITH_TEXT = TEXT.filter(str.strip)
LINE_ENDS = st.sampled_from(['\n', '\r\n'])


@settings(max_examples=150, deadline=None)
@given(captions=st.lists(WITH_TEXT, min_size=1, max_size=9), end=LINE_ENDS, closed=st.booleans())
def test_any_captions_are_read_as_they_were_written(captions, end, closed):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'train_caps.txt'
    path.write_bytes((end.join(captions) + (end if closed else '')).encode())
    assert read_lines(path) == [caption.strip() for caption in captions]


@settings(max_examples=80, deadline=None)
@given(captions=st.lists(TEXT, min_size=1, max_size=9))
def test_the_first_line_without_text_is_named(captions):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'train_caps.txt'
    path.write_bytes(('\n'.join(captions) + '\n').encode())
    empty = [number for number, caption in enumerate(captions, start=1) if not caption.strip()]
    if empty:
      with pytest.raises(UserError, match=f'train_caps.txt: line {empty[0]} is empty'):
        read_lines(path)
    else:
      assert len(read_lines(path)) == len(captions)


@settings(max_examples=80, deadline=None)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_captions_belong_to_the_images_that_the_ids_name(counts):
  """One id per caption, in runs: any number of captions per image, and every image keeps its id and its row."""
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    regions = np.arange(len(counts) * 6, dtype=np.float32).reshape(-1, 2, 3)
    owner = np.repeat(np.arange(len(counts)), counts)
    np.save(folder / 'train_ims.npy', regions)
    (folder / 'train_caps.txt').write_text(''.join(f'caption {number}\n' for number in range(len(owner))))
    (folder / 'train_ids.txt').write_text(''.join(f'image {image}\n' for image in owner))
    split = load_split(folder, 'train')
    assert split.owner.tolist() == owner.tolist()
    assert split.ids == [f'image {image}' for image in range(len(counts))]
    np.testing.assert_array_equal(split.features.rows(np.arange(len(counts)))[0], regions)


@st.composite
def features(draw):
  shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7)))
  dtype = draw(st.sampled_from([np.float16, np.float32]))
  numbers = st.floats(-100, 100, width=16)
  counts = draw(st.none() | st.lists(st.integers(1, shape[1]), min_size=shape[0], max_size=shape[0]))
  return draw(arrays.arrays(dtype, shape, elements=numbers)), counts, draw(st.sampled_from([1, 2, 5]))


@settings(max_examples=100, deadline=None)
@given(drawn=features(), data=st.data())
def test_any_features_are_read_bit_for_bit_and_padding_is_zero(drawn, data):
  images, counts, repeat = drawn
  index = np.array(data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=7)))
  with tempfile.TemporaryDirectory() as folder:
    stored = images.copy()
    if counts is not None:  # junk behind the real regions is nobody's business
      for row, count in enumerate(counts):
        stored[row, count:] = np.nan
      np.save(pathlib.Path(folder) / 'dev_num_regions.npy', np.repeat(counts, repeat))
    np.save(pathlib.Path(folder) / 'dev_ims.npy', np.repeat(stored, repeat, axis=0))
    reader = RegionFeatures(pathlib.Path(folder) / 'dev_ims.npy', repeat=repeat)
    assert (len(reader), reader.max_regions, reader.region_size, reader.dtype) == (*images.shape, images.dtype)
    regions, mask = reader.rows(index)
  assert regions.shape == (len(index), *images.shape[1:])
  for place, row in enumerate(index):
    real = images.shape[1] if counts is None else counts[row]
    assert mask[place].tolist() == [position < real for position in range(images.shape[1])]
    assert regions[place, :real].tobytes() == images[row, :real].tobytes()
    assert not regions[place, real:].any()


@settings(max_examples=100, deadline=None)
@given(
  num_captions=st.integers(1, 60),
  batch_size=st.integers(1, 60),
  seed=st.integers(0, 2**32 - 1),
  epoch=st.integers(0, 3),
)
def test_an_epoch_holds_each_caption_at_most_once_and_can_begin_anywhere(num_captions, batch_size, seed, epoch):
  if batch_size > num_captions:
    with pytest.raises(UserError, match=f'is {batch_size}, but there are only {num_captions} captions'):
      ShuffledSampler(num_captions, batch_size, seed)
    return
  sampler = ShuffledSampler(num_captions, batch_size, seed)
  steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
  batches = [sampler.batch(step) for step in steps]
  assert {number for number, _ in batches} == {epoch}
  assert [len(captions) for _, captions in batches] == [batch_size] * (num_captions // batch_size)
  used = np.concatenate([captions for _, captions in batches])
  assert len(set(used.tolist())) == len(used) > num_captions - batch_size
  assert 0 <= used.min() <= used.max() < num_captions
  resumed = ShuffledSampler(num_captions, batch_size, seed)  # another start, in another order
  for step, (number, captions) in reversed(list(zip(steps, batches, strict=True))):
    assert resumed.batch(step)[0] == number
    np.testing.assert_array_equal(resumed.batch(step)[1], captions)


def same(ours, theirs) -> None:
  for name in ('tokens', 'words', 'offsets'):
    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)


def test_any_bit_of_the_cache_may_be_wrong(tmp_path):
  """Of its zip, too: one says that it is encrypted, one that it is compressed in a way that nobody knows."""
  tokenizer = build_vocabulary(['a dog'])
  same(cached_tokens(['dog'], tokenizer, folder=tmp_path), tokenize(['dog'], tokenizer))
  (path,) = tmp_path.rglob('*.npz')
  content = path.read_bytes()
  for position in range(len(content)):
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    same(cached_tokens(['dog'], tokenizer, folder=tmp_path), tokenize(['dog'], tokenizer))


@settings(max_examples=80, deadline=None)
@given(known=st.lists(WITH_TEXT, min_size=1, max_size=5), asked=st.lists(TEXT, max_size=6), data=st.data())
def test_the_cache_gives_the_tokens_whatever_happens_to_its_file(known, asked, data):
  tokenizer = build_vocabulary(known)
  expected = tokenize(asked, tokenizer)
  same(tokenize(asked, from_json(tokenizer.to_json(), source='test')), expected)
  with tempfile.TemporaryDirectory() as folder:
    for _ in range(2):
      same(cached_tokens(asked, tokenizer, folder=pathlib.Path(folder)), expected)
    (file,) = (pathlib.Path(folder) / 'tokens').iterdir()
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
      content[place] ^= data.draw(st.integers(1, 255))
    else:
      del content[place:]
    file.write_bytes(content)
    for _ in range(2):
      same(cached_tokens(asked, tokenizer, folder=pathlib.Path(folder)), expected)
