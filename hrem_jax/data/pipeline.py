"""From a split to batches: order, augmentation, padding, and grain to read ahead."""

import functools
from collections.abc import Iterator

import grain
import ml_collections
import numpy as np
from jaxtyping import Bool, Int

from hrem_jax.data.augmentation import change_words, drop_regions, example_rng
from hrem_jax.data.batch import Batch
from hrem_jax.data.precomputed import Split
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
  for row, tokens in enumerate(captions):
    length = min(len(tokens), width - 2) + 2
    padded[row, :length] = [tokenizer.start, *tokens[: length - 2], tokenizer.end]
    mask[row, :length] = True
  return padded, mask


@functools.lru_cache(maxsize=4)
def epoch_order(num_captions: int, seed: int, epoch: int) -> Int[np.ndarray, ' t']:
  """A fresh permutation for each epoch; kept for as long as read-ahead may straddle an epoch's end."""
  return np.random.Generator(np.random.Philox(key=seed, counter=[0, 1, epoch, 0])).permutation(num_captions)


class ShuffledSampler:
  """All captions in a fresh order every epoch; the last, partial batch is dropped.

  A function of (seed, step): nothing to save, nothing to restore.
  """

  def __init__(self, num_captions: int, batch_size: int, seed: int):
    if num_captions < batch_size:
      raise UserError(f'config.training.batch_size is {batch_size}, but there are only {num_captions} captions')
    self._num_captions, self._batch_size, self._seed = num_captions, batch_size, seed
    self.steps_per_epoch = num_captions // batch_size

  def batch(self, step: int) -> tuple[int, Int[np.ndarray, ' b']]:
    """The epoch of a step and its caption indices, the same on every process."""
    epoch, position = divmod(step, self.steps_per_epoch)
    order = epoch_order(self._num_captions, self._seed, epoch)
    return epoch, order[position * self._batch_size : (position + 1) * self._batch_size]


class TrainingBatches:
  """`batch(step)`: this process's rows of the global batch of an update, augmented and padded.

  Args:
    split: The training split.
    tokenized: Its captions.
    tokenizer: Gives the special tokens.
    config: The whole configuration.
    process: This process and how many there are; each makes its own rows.
  """

  def __init__(
    self,
    split: Split,
    tokenized: TokenizedCaptions,
    tokenizer: TextTokenizer,
    config: ml_collections.ConfigDict,
    *,
    process: tuple[int, int] = (0, 1),
  ):
    self._split, self._tokenized, self._tokenizer = split, tokenized, tokenizer
    self._data, self._seed, self._process = config.data, config.training.seed, process
    self._buckets, self._lengths = tuple(config.data.length_buckets), tokenized.lengths
    self.sampler = ShuffledSampler(len(tokenized), config.training.batch_size, config.training.seed)
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
    # The width is that of the longest caption of the whole batch before augmentation: all processes agree on it.
    width = bucket_for(int(self._lengths[captions].max()), self._buckets)
    captions = np.array_split(captions, self._process[1])[self._process[0]]
    images = self._split.owner[captions]
    regions, region_mask = self._split.features.rows(images)
    tokens = []
    for row, caption in enumerate(captions):
      rng = example_rng(self._seed, epoch, int(caption))
      region_mask[row] = drop_regions(region_mask[row], rng, self._data.drop_regions)
      tokens.append(self._augmented(int(caption), rng))
    padded, word_mask = pad_tokens(tokens, width, self._tokenizer)
    return Batch(regions, region_mask, padded, word_mask, images.astype(np.int32))

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


def image_chunks(split: Split, size: int) -> Iterator[tuple[Int[np.ndarray, ' c'], np.ndarray, np.ndarray]]:
  """All images in order: their rows, regions and masks, `size` at a time, the last chunk padded with empty images."""
  for start in range(0, split.num_images, size):
    index = np.arange(start, min(start + size, split.num_images))
    regions, mask = split.features.rows(index)
    padding = size - len(index)
    yield index, np.pad(regions, [(0, padding), (0, 0), (0, 0)]), np.pad(mask, [(0, padding), (0, 0)])


def text_chunks(
  tokenized: TokenizedCaptions, tokenizer: TextTokenizer, size: int, buckets: tuple[int, ...]
) -> Iterator[tuple[Int[np.ndarray, ' c'], np.ndarray, np.ndarray]]:
  """All captions, shortest first, so that chunks are narrow: their numbers, tokens and masks, `size` at a time."""
  order = np.argsort(tokenized.lengths, kind='stable')
  for start in range(0, len(order), size):
    index = order[start : start + size]
    width = bucket_for(int(tokenized.lengths[index].max()), buckets)
    tokens, mask = pad_tokens([tokenized.caption(int(caption))[0] for caption in index], width, tokenizer)
    padding = size - len(index)
    yield (
      index,
      np.pad(tokens, [(0, padding), (0, 0)], constant_values=tokenizer.pad),
      np.pad(mask, [(0, padding), (0, 0)]),
    )
