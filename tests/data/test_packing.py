"""Packing on the host: nothing lost, whole captions, groups apart, the same shapes for every process."""

import operator

import hypothesis
import numpy as np
import pytest
import synthetic
from hypothesis import strategies

from hrem_jax.data.packing import balanced_order, lay_out, pack_rows, round_up, usual_rows
from hrem_jax.data.pipeline import bucket_for
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import default_config, validate

PAD = 101  # no caption has it


@strategies.composite
def batches(draw):
  """Lengths before augmentation, those after it, the number of groups and the width of a row."""
  num_groups, size = draw(strategies.integers(1, 5)), draw(strategies.integers(1, 9))
  longest = draw(strategies.integers(2, 13))
  lengths = draw(
    strategies.lists(strategies.integers(2, longest), min_size=num_groups * size, max_size=num_groups * size)
  )
  shortened = [draw(strategies.integers(2, length)) for length in lengths]
  return np.array(lengths), np.array(shortened), num_groups, longest + draw(strategies.integers(0, 17))


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(batches())
def test_every_word_once_whole_captions_groups_apart(batch):
  lengths, shortened, num_groups, row_width = batch
  layout = lay_out(lengths, num_groups=num_groups, row_width=row_width)
  width = int(lengths.max())
  mask = np.arange(width) < shortened[:, None]
  tokens = np.where(mask, np.arange(mask.size).reshape(mask.shape) + 1000, PAD)  # every word has its own number
  rows, row_mask, packing = pack_rows(tokens, mask, layout, pad=PAD)
  assert rows.shape == row_mask.shape == (num_groups * layout.num_rows, row_width)
  assert packing.index.shape == packing.mask.shape == (num_groups, len(lengths) // num_groups, width)

  assert sorted(rows[row_mask].tolist()) == sorted(tokens[mask].tolist())
  assert (rows[~row_mask] == PAD).all()
  np.testing.assert_array_equal(row_mask, packing.captions >= 0)
  np.testing.assert_array_equal(packing.mask.reshape(mask.shape), mask)
  groups = rows.reshape(num_groups, -1)
  for number, length in enumerate(shortened):
    group, caption = divmod(number, len(lengths) // num_groups)
    where = packing.index[group, caption, :length]
    np.testing.assert_array_equal(where, where[0] + np.arange(length), 'words side by side')
    assert where[0] // row_width == where[-1] // row_width, 'a caption lies in one row'
    np.testing.assert_array_equal(groups[group, where], tokens[number, :length])
    assert (packing.captions.reshape(num_groups, -1)[group, where] == caption).all()
    assert packing.positions.reshape(num_groups, -1)[group, where].tolist() == list(range(length))
    assert (packing.index[group, caption, length:] == groups.shape[1]).all()


def test_longest_first_into_the_first_row_with_room():
  layout = lay_out(np.array([3, 6, 4, 5, 2, 2, 2, 2]), num_groups=2, row_width=10)
  # First group: 6 and 4 fill a row, 5 and 3 the next one. The second group's four captions fit in one row.
  assert layout.starts.tolist() == [[15, 0, 6, 10], [0, 2, 4, 6]]
  assert layout.num_rows == 2


def test_few_numbers_of_rows():
  assert [round_up(count) for count in (1, 7, 15, 16, 17, 31, 32, 33, 37, 63, 64, 65)] == (
    [1, 7, 15, 16, 18, 32, 32, 36, 40, 64, 64, 72]
  )


def test_rows_are_mostly_full():
  """Captions as long as those of Flickr8K, which padding to 32 leaves half empty."""
  rng = np.random.default_rng(0)
  lengths = np.clip(rng.normal(14.3, 4.2, (20, 128)).round(), 5, 30).astype(int)
  shares = [
    batch.sum() / (layout.num_rows * 64) for batch in lengths if (layout := lay_out(batch, num_groups=1, row_width=64))
  ]
  assert min(shares) > 0.9


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  return synthetic.load_training_split(tmp_path_factory.mktemp('tiny'))


def unpacked(batch) -> list[list[int]]:
  """The tokens of every caption, through `packing`."""
  packing = batch.texts.packing
  groups = batch.texts.tokens.reshape(len(packing.index), -1)
  return [
    group[index[mask]].tolist()
    for group, indices, masks in zip(groups, packing.index, packing.mask, strict=True)
    for index, mask in zip(indices, masks, strict=True)
  ]


@pytest.mark.parametrize(('row_width', 'expected'), [(64, 64), (9, None), (20, 20)])
def test_packed_batches_hold_the_captions_of_padded_ones(tiny, row_width, expected):
  """Width 9 is below the longest caption's: there the rows are as wide as the batch's bucket."""
  for step in range(5):
    batch = synthetic.make_batches(tiny, num_devices=4, **{'data.row_width': row_width}).batch(step)
    one_a_row = synthetic.make_batches(tiny, **{'data.pack': False}).batch(step)
    packed, padded = batch.texts, one_a_row.texts
    assert padded.packing is None
    assert packed.packing.mask.shape == (4, 4, padded.tokens.shape[1])
    assert packed.tokens.shape[1] == expected or (expected is None and packed.tokens.shape[1] in (9, 12))
    batches = synthetic.make_batches(tiny)
    order = balanced_order(batches._lengths[batches.sampler.batch(step)[1]], 4)
    rows = [tokens[mask].tolist() for tokens, mask in zip(padded.tokens, padded.mask, strict=True)]
    assert unpacked(batch) == [rows[row] for row in order]
    for name in ('images.regions', 'images.mask', 'image_ids'):
      value = operator.attrgetter(name)
      np.testing.assert_array_equal(value(batch), value(one_a_row)[order])


def test_groups_do_not_depend_on_the_devices(tiny):
  one, eight = (
    synthetic.make_batches(tiny, num_devices=devices, **{'data.packing_groups': 8}).batch(3) for devices in (1, 8)
  )
  np.testing.assert_array_equal(one.texts.tokens, eight.texts.tokens)
  np.testing.assert_array_equal(one.texts.packing.index, eight.texts.packing.index)
  assert one.texts.packing.index.shape[0] == 8


def test_captions_beyond_the_widest_bucket_are_cut(tiny):
  changes = {'data.length_buckets': (5, 6), 'data.row_width': 13, 'data.drop_words': 0.0}
  batch = synthetic.make_batches(tiny, num_devices=2, **changes).batch(1)
  end = tiny[3].end
  captions = unpacked(batch)
  assert {len(caption) for caption in captions} == {6}
  assert all(caption[-1] == end for caption in captions)
  assert batch.texts.tokens.shape == (2 * 4, 13)  # two captions a row


def test_augmentation_that_deletes_every_word(tiny, monkeypatch):
  monkeypatch.setattr('hrem_jax.data.pipeline.change_words', lambda tokens, *_, **__: tokens[:0])
  batch = synthetic.make_batches(tiny, num_devices=2).batch(1)
  assert unpacked(batch) == [[tiny[3].start, tiny[3].end]] * 16
  whole = synthetic.make_batches(tiny, num_devices=2, **{'data.drop_words': 0.0}).batch(1)
  assert batch.texts.tokens.shape == whole.texts.tokens.shape


@pytest.mark.parametrize(
  ('key', 'value', 'num_devices', 'message'),
  [
    ('packing_groups', 6, 4, r'config.data.packing_groups \(6\) is not divisible by 4 device\(s\) x 1 part\(s\)'),
    ('packing_groups', 24, 4, r'training.batch_size \(128\) is not divisible by config.data.packing_groups \(24\)'),
    ('packing_groups', -1, 1, r'config.data.packing_groups is -1, expected 0 \(one per device\) or positive'),
    ('row_width', 0, 1, 'config.data.row_width is 0, expected positive'),
  ],
)
def test_groups_that_cannot_work_are_named(key, value, num_devices, message):
  config = default_config()
  validate(config, num_devices=num_devices)
  config.data[key] = value
  with pytest.raises(UserError, match=message):
    validate(config, num_devices=num_devices)


def test_nearly_all_batches_have_one_shape():
  """Without a minimum the rows follow each batch's words, and each number of rows is a program to compile."""
  rng = np.random.default_rng(0)
  lengths = np.clip(rng.normal(14, 4, size=5000).round().astype(int), 5, 30)
  batches = [rng.choice(lengths, size=64) for _ in range(200)]
  usual = usual_rows(lengths, 64, 64)
  assert usual * 64 < 1.2 * 64 * lengths.mean()  # at the price of little padding

  def shapes(**options) -> list[int]:
    return [lay_out(batch, num_groups=1, row_width=64, **options).num_rows for batch in batches]

  assert len(set(shapes())) > 2
  with_minimum = shapes(min_rows=usual)
  assert np.mean(np.asarray(with_minimum) == round_up(usual)) >= 0.99


@pytest.mark.parametrize('num_groups', [1, 8])
def test_next_to_no_new_shapes_after_the_first_pass(num_groups):
  """A shape is a program to compile; few batches in a hundred need a row more than usual."""
  rng, buckets = np.random.default_rng(0), default_config().data.length_buckets
  lengths = np.clip(rng.gamma(11.0, 1.3, 20_000).round().astype(int), 5, 60)
  usual = usual_rows(lengths, 128, 64, num_groups=num_groups)

  def shapes() -> list[tuple[int, int]]:
    found = []
    for batch in np.split(rng.permutation(lengths)[: 128 * 156], 156):
      balanced = batch[balanced_order(batch, num_groups)]
      layout = lay_out(balanced, num_groups=num_groups, row_width=64, min_rows=usual)
      found.append((layout.num_rows, bucket_for(int(batch.max()), buckets)))
    return found

  first = set(shapes())
  later = [shape for _ in range(7) for shape in shapes()]
  assert len(first) <= 6  # three buckets, twice
  assert len(set(later) - first) <= len(first)
  assert sum(shape not in first for shape in later) < 0.02 * len(later)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
  strategies.integers(1, 8).flatmap(
    lambda groups: strategies.lists(strategies.integers(2, 60), min_size=groups, max_size=12 * groups).map(
      lambda lengths: (groups, np.array(lengths[: len(lengths) // groups * groups]))
    )
  )
)
def test_groups_are_balanced(groups_and_lengths):
  num_groups, lengths = groups_and_lengths
  order = balanced_order(lengths, num_groups)
  assert sorted(order.tolist()) == list(range(len(lengths)))
  words = lengths[order].reshape(num_groups, -1).sum(axis=1)
  assert words.max() - words.min() <= lengths.max() - lengths.min()
