"""From a split to batches: order, augmentation, padding, and grain to read ahead."""

import functools
from collections.abc import Collection, Iterator
from typing import Protocol

import grain
import jax
import ml_collections
import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.augmentation import change_words, drop_regions, example_rng
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import Layout, balanced_order, lay_out, pack_rows, round_up, usual_rows
from hrem_jax.data.precomputed import Split
from hrem_jax.data.samplers import make_sampler
from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions
from hrem_jax.errors import UserError


def bucket_for(length: int, buckets: tuple[int, ...]) -> int:
  """The narrowest bucket that holds `length`, or the widest one (what is longer is cut)."""
  return buckets[min(int(np.searchsorted(buckets, length)), len(buckets) - 1)]


def pad_tokens(
  captions: list[Int[np.ndarray, ' w']], width: int, tokenizer: TextTokenizer
) -> tuple[Int[np.ndarray, 'b w'], Bool[np.ndarray, 'b w']]:
  """Start, tokens, end and padding in rows of `width`; a longer caption loses its last tokens, never its end."""
  padded = np.full((len(captions), width), tokenizer.pad, np.int32)
  mask = np.zeros((len(captions), width), bool)
  start = [] if tokenizer.start is None else [tokenizer.start]
  for row, tokens in enumerate(captions):
    whole = [*start, *tokens[: width - tokenizer.num_special], tokenizer.end]
    padded[row, : len(whole)], mask[row, : len(whole)] = whole, True
  return padded, mask


class TrainingBatches:
  """`batch(step)`: this process's part of the global batch of an update, augmented, its captions packed or padded.

  Args:
    split: The training split.
    tokenized: Its captions.
    tokenizer: Gives the special tokens.
    config: The whole configuration.
    wants: Names of the optional inputs that the method takes.
    process: This process and how many there are; each makes its own part.
    num_devices: Of all processes; captions are packed within groups, and a device gets whole groups.
  """

  def __init__(
    self,
    split: Split,
    tokenized: TokenizedCaptions,
    tokenizer: TextTokenizer,
    config: ml_collections.ConfigDict,
    *,
    wants: Collection[str] = (),
    process: tuple[int, int] = (0, 1),
    num_devices: int = 1,
  ):
    self._split, self._tokenized, self._tokenizer = split, tokenized, tokenizer
    self._data, self._seed, self._process = config.data, config.training.seed, process
    self._buckets, self._lengths = tuple(config.data.length_buckets), tokenized.lengths
    self._wants = wants
    self.sampler = make_sampler(split.owner, config)
    self._num_groups = config.data.packing_groups or num_devices * config.model.parts
    self._usual_rows = functools.cache(self._count_usual_rows)  # looks at all captions: not for every batch
    if config.training.batch_size % process[1]:
      raise UserError(
        f'config.training.batch_size ({config.training.batch_size}) is not divisible by {process[1]} processes'
      )

  def describe(self) -> str:
    """What is trained on, for a person."""
    features, lengths = self._split.features, self._lengths
    cut = int((lengths > self._buckets[-1]).sum())
    return (
      f'{self._split.num_images:,} images of up to {features.max_regions} regions of {features.region_size} '
      f'({features.dtype}), {len(lengths):,} captions of {lengths.mean():.1f} tokens on average and '
      f'{lengths.max()} at most' + (f', {cut} of them cut to {self._buckets[-1]}' if cut else '')
    )

  def batch(self, step: int) -> Batch:
    epoch, captions = self.sampler.batch(step)
    # Shapes follow from the lengths of the whole batch before augmentation: all processes agree on them.
    lengths = np.minimum(self._lengths[captions], self._buckets[-1])
    if self._data.pack:  # the losses do not look at the order
      order = balanced_order(lengths, self._num_groups)
      captions, lengths = captions[order], lengths[order]
    width = bucket_for(int(lengths.max()), self._buckets)
    captions = np.array_split(captions, self._process[1])[self._process[0]]
    images = self._split.owner[captions]
    inputs, tokens = image_inputs(self._split.features, images, self._wants), []
    for row, caption in enumerate(captions):
      rng = example_rng(self._seed, epoch, int(caption))
      inputs.mask[row] = drop_regions(inputs.mask[row], rng, self._data.drop_regions)
      tokens.append(self._augmented(int(caption), rng))
    padded, word_mask = pad_tokens(tokens, width, self._tokenizer)
    image_ids = images.astype(np.int32)
    if not self._data.pack:
      return Batch(inputs, TextInputs(padded, word_mask), image_ids)
    layout = self._layout(lengths, width).part(*self._process)
    packed = pack_rows(padded, word_mask, layout, pad=self._tokenizer.pad)
    return Batch(inputs, TextInputs(*packed), image_ids)

  def _layout(self, lengths: Int[np.ndarray, ' t'], width: int) -> Layout:
    row_width = self._data.row_width if lengths.max() <= self._data.row_width else width
    min_rows = self._usual_rows(len(lengths), row_width)
    return lay_out(lengths, num_groups=self._num_groups, row_width=row_width, min_rows=min_rows)

  def _count_usual_rows(self, num_captions: int, row_width: int) -> int:
    lengths = np.minimum(self._lengths, self._buckets[-1])
    return usual_rows(lengths, num_captions, row_width, num_groups=self._num_groups)

  def _augmented(self, caption: int, rng: np.random.Generator) -> Int[np.ndarray, ' w']:
    tokens, words = self._tokenized.caption(caption)
    return change_words(
      tokens, words, rng, self._data.drop_words, mask_token=self._tokenizer.mask, vocab_size=self._tokenizer.vocab_size
    )


def read_ahead(batches: TrainingBatches, num_steps: int) -> grain.DatasetIterator:
  """An iterator over the batches of steps 0 to `num_steps`; its state is its position, which grain saves and restores.

  Two threads: the work is NumPy and page faults, both of which release the interpreter.
  """
  dataset = grain.MapDataset.range(num_steps).map(batches.batch)
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


class Images(Protocol):
  """What holds images: `RegionFeatures`, or arrays in memory."""

  def __len__(self) -> int: ...

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[Float[np.ndarray, 'b r f'], Bool[np.ndarray, 'b r']]: ...

  def extra(self, name: str, index: Int[np.ndarray, ' b']) -> np.ndarray: ...  # an optional input `[b, ...]`


def image_inputs(images: Images, index: Int[np.ndarray, ' b'], wants: Collection[str]) -> ImageInputs:
  """Some images with the optional inputs that a method wants."""
  return ImageInputs(*images.rows(index), {name: images.extra(name, index) for name in wants})


def image_chunks(
  images: Images, size: int, wants: Collection[str] = ()
) -> Iterator[tuple[Int[np.ndarray, ' c'], ImageInputs]]:
  """All images in order: their rows and inputs, `size` at a time, the last chunk filled up with empty images."""
  for start in range(0, len(images), size):
    index = np.arange(start, min(start + size, len(images)))
    yield index, _filled_up(image_inputs(images, index, wants), size - len(index))


def _filled_up(inputs: ImageInputs, count: int) -> ImageInputs:
  return jax.tree.map(lambda x: np.pad(x, [(0, count)] + [(0, 0)] * (x.ndim - 1)), inputs)


def text_chunks(
  tokenized: TokenizedCaptions,
  tokenizer: TextTokenizer,
  size: int,
  max_width: int,
  widths: tuple[int, ...] | None = None,
) -> Iterator[tuple[Int[np.ndarray, ' c'], TextInputs]]:
  """All captions, shortest first, `size` at a time: their numbers and inputs.

  A chunk is hardly wider than its longest caption, and its captions are alike: next to no padding, few widths. Where
  `widths` are given, it has one of them: still fewer, for those who ask one sentence at a time. The chunk that is
  filled up with empty rows is the first: they are as short as the shortest captions.
  """
  order = np.argsort(tokenized.lengths, kind='stable')
  for index in np.split(order, range(len(order) % size or size, len(order), size)):
    longest = int(tokenized.lengths[index].max())
    width = bucket_for(longest, widths) if widths else min(round_up(-(-longest // 4)) * 4, max_width)
    tokens, mask = pad_tokens([tokenized.caption(int(caption))[0] for caption in index], width, tokenizer)
    padding = size - len(index)
    tokens = np.pad(tokens, [(0, padding), (0, 0)], constant_values=tokenizer.pad)
    yield index, TextInputs(tokens, np.pad(mask, [(0, padding), (0, 0)]))
