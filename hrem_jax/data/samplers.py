"""Which captions make the batch of a step: all in a shuffled order, or those of neighbouring images."""

import functools
import threading

import ml_collections
import numpy as np
from jaxtyping import Int

from hrem_jax.errors import UserError


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


class NeighbourSampler:
  """Batches of P clusters x K images, one caption of each image (METHOD section 5).

  An epoch has as many steps as one of ShuffledSampler. It consists of rounds; in a round every image occurs at most
  once, in a group with K - 1 others of its cluster (what is left over of the clusters makes mixed groups), and P groups
  drawn at random make a batch. So a batch never holds an image twice. From one occurrence of an image to the next its
  captions are gone through in an order of that epoch; images with fewer captions than others begin again.

  A function of (seed, step) and of the clusters of the phase, `every_epochs` epochs, that the step lies in. Who trains
  publishes them at the start of a phase; batches that are asked for earlier, by reading ahead, wait.

  Args:
    owner: The image of each caption.
    batch_size: P x K.
    seed: Of all draws.
    images_per_cluster: K.
    every_epochs: How long clusters stay.

  Raises:
    UserError: There are fewer images than rows of a batch.
  """

  def __init__(
    self, owner: Int[np.ndarray, ' t'], batch_size: int, seed: int, *, images_per_cluster: int, every_epochs: int = 1
  ):
    self._captions_per_image = np.bincount(owner)
    self._images = np.flatnonzero(self._captions_per_image)
    if len(self._images) < batch_size:
      raise UserError(
        f'config.training.batch_size is {batch_size}, but there are only {len(self._images)} images, and a batch of '
        "config.data.sampler='neighbours' never holds an image twice"
      )
    self._owner, self._batch_size, self._seed = owner, batch_size, seed
    self._group_size, self._every_epochs = images_per_cluster, every_epochs
    self._labels: dict[int, np.ndarray] = {}
    self._changed, self._is_closed = threading.Condition(), False
    self._epoch_captions = functools.lru_cache(maxsize=2)(self._make_epoch)
    self.steps_per_epoch = len(owner) // batch_size

  def phase(self, step: int) -> int:
    """The phase that a step lies in, counted from 0; its clusters must be published before it is reached."""
    return step // self.steps_per_epoch // self._every_epochs

  def publish(self, phase: int, labels: Int[np.ndarray, ' i']) -> None:
    """Sets the cluster of each image for a phase; who waits for it goes on."""
    with self._changed:
      self._labels[phase] = labels
      self._changed.notify_all()

  def close(self) -> None:
    """No more clusters will come: who waits for some raises RuntimeError."""
    with self._changed:
      self._is_closed = True
      self._changed.notify_all()

  def batch(self, step: int) -> tuple[int, Int[np.ndarray, ' b']]:
    """The epoch of a step and its caption indices, the same on every process; waits for the clusters."""
    epoch, position = divmod(step, self.steps_per_epoch)
    return epoch, self._epoch_captions(epoch)[position]

  def _wait_for_labels(self, phase: int) -> Int[np.ndarray, ' i']:
    with self._changed:
      self._changed.wait_for(lambda: phase in self._labels or self._is_closed)
      if phase not in self._labels:
        raise RuntimeError(f'closed before the clusters of phase {phase} were there')
      return self._labels[phase]

  def _make_epoch(self, epoch: int) -> Int[np.ndarray, 's b']:
    """The captions of all batches of an epoch."""
    labels = self._wait_for_labels(epoch // self._every_epochs)[self._images]
    rng = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 2, epoch, 0]))
    num_rounds = -(-self.steps_per_epoch // (len(self._images) // self._batch_size))
    rounds = [neighbour_round(labels, self._group_size, self._batch_size, rng) for _ in range(num_rounds)]
    images = self._images[np.concatenate(rounds)[: self.steps_per_epoch]]
    return self._captions_of(images.ravel(), rng).reshape(images.shape)

  def _captions_of(self, images: Int[np.ndarray, ' n'], rng: np.random.Generator) -> Int[np.ndarray, ' n']:
    """For each occurrence of an image the next of its captions, in a random order for each image."""
    shuffled = rng.permutation(len(self._owner))
    by_image = shuffled[np.argsort(self._owner[shuffled], kind='stable')]
    counts = self._captions_per_image
    first = np.cumsum(counts) - counts
    return by_image[first[images] + occurrences(images) % counts[images]]


def neighbour_round(
  labels: Int[np.ndarray, ' i'], group_size: int, batch_size: int, rng: np.random.Generator
) -> Int[np.ndarray, 's b']:
  """Batches in which each image occurs at most once, put together from groups of one cluster each.

  Args:
    labels: The cluster of each image, from 0.
    group_size: K, divides `batch_size`.
    batch_size: P x K; at most the number of images.
    rng: Randomness of this round.

  Returns:
    Positions in `labels`: `i // batch_size` batches, K by K of the same group. Where clusters do not divide by K,
    what is left over of them makes mixed groups, cluster after cluster.
  """
  # The last, partial group is lost: in a fixed order of the clusters always at the expense of the same ones.
  labels = rng.permutation(labels.max() + 1)[labels]
  shuffled = rng.permutation(len(labels))
  by_cluster = shuffled[np.argsort(labels[shuffled], kind='stable')]
  place, sizes = occurrences(labels[by_cluster]), np.bincount(labels)[labels[by_cluster]]
  is_left_over = place >= sizes // group_size * group_size
  ordered = np.concatenate([by_cluster[~is_left_over], by_cluster[is_left_over]])
  groups = ordered[: len(ordered) // group_size * group_size].reshape(-1, group_size)
  num_batches = len(labels) // batch_size
  return rng.permutation(groups)[: num_batches * (batch_size // group_size)].reshape(num_batches, batch_size)


def occurrences(values: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
  """How often each value stood before in the array: `[7, 5, 7, 7]` gives `[0, 0, 1, 2]`."""
  order = np.argsort(values, kind='stable')
  counts = np.bincount(values)
  before = np.empty(len(values), np.int64)
  before[order] = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
  return before


def make_sampler(owner: Int[np.ndarray, ' t'], config: ml_collections.ConfigDict) -> ShuffledSampler | NeighbourSampler:
  """The sampler that a whole configuration asks for; `owner` is the image of each caption."""
  batch_size, seed, neighbours = config.training.batch_size, config.training.seed, config.data.neighbours
  if config.data.sampler == 'shuffled':
    return ShuffledSampler(len(owner), batch_size, seed)
  return NeighbourSampler(
    owner,
    batch_size,
    seed,
    images_per_cluster=neighbours.images_per_cluster,
    every_epochs=neighbours.every_epochs,
  )
