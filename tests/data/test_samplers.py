"""Batches of neighbours: what they are made of, and that they are a function of seed, step and clusters."""

import threading

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from hrem_jax.data.samplers import NeighbourSampler, ShuffledSampler, make_sampler, neighbour_round, occurrences
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import default_config, validate

NUM_IMAGES, CAPTIONS, BATCH, GROUP = 131, 5, 24, 4
OWNER = np.repeat(np.arange(NUM_IMAGES), CAPTIONS)
LABELS = np.random.default_rng(0).integers(7, size=NUM_IMAGES).astype(np.int32)


def make(owner=OWNER, *, labels=LABELS, seed=3, phases=6, batch_size=BATCH, group=GROUP, **more) -> NeighbourSampler:
  sampler = NeighbourSampler(owner, batch_size, seed, images_per_cluster=group, **more)
  for phase in range(phases):
    sampler.publish(phase, labels)
  return sampler


def epoch_of(sampler, epoch: int) -> np.ndarray:
  """All batches of an epoch, [s, b]."""
  steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
  return np.stack([sampler.batch(step)[1] for step in steps])


def full_groups(batch: np.ndarray, owner: np.ndarray, labels: np.ndarray, group: int) -> int:
  """How many of the runs of `group` rows are of one cluster."""
  of_rows = labels[owner[batch]].reshape(-1, group)
  return int((of_rows == of_rows[:, :1]).all(axis=1).sum())


def test_an_epoch_is_as_long_as_a_shuffled_one_and_holds_nearly_every_caption_once():
  sampler = make()
  assert sampler.steps_per_epoch == ShuffledSampler(len(OWNER), BATCH, 3).steps_per_epoch == 655 // 24
  for epoch in (0, 1):
    batches = epoch_of(sampler, epoch)
    assert batches.shape == (27, BATCH)
    used = np.bincount(batches.ravel(), minlength=len(OWNER))
    # 27 batches are 6 rounds of 5 (the last of 2): no image comes more often than there are rounds, ...
    per_image = np.bincount(OWNER[batches.ravel()], minlength=NUM_IMAGES)
    assert per_image.max() <= 6
    assert per_image.min() >= 2
    # ... and its captions take turns.
    by_image = used.reshape(NUM_IMAGES, CAPTIONS)
    assert (by_image.max(axis=1) - by_image.min(axis=1)).max() == 1
    assert (used > 0).mean() > 0.9


def test_no_round_holds_an_image_twice_and_no_image_is_always_left_out():
  per_image = np.zeros(NUM_IMAGES, int)
  for epoch in range(40):
    first_round = OWNER[epoch_of(make(phases=epoch + 1), epoch)[:5]]
    assert len(set(first_round.ravel().tolist())) == 5 * BATCH
    per_image[first_round] += 1
  # 120 of 131 images are in a round: 36.6 of 40 on average, with a standard deviation of at most 1.8.
  assert per_image.min() >= 27


def test_batches_are_made_of_neighbours_and_shuffled_ones_are_not():
  """Seven clusters of about 19: at most 3 images each and so at most 5 groups of a round of 30 are mixed."""
  sampler, shuffled = make(), ShuffledSampler(len(OWNER), BATCH, 3)
  groups = [full_groups(batch, OWNER, LABELS, GROUP) for batch in epoch_of(sampler, 0)]
  by_chance = [full_groups(batch, OWNER, LABELS, GROUP) for batch in epoch_of(shuffled, 0)]
  assert sum(groups) >= (6 - 1) * len(groups)
  assert sum(by_chance) <= 0.1 * sum(groups)


def test_clusters_that_divide_by_k_give_batches_of_whole_groups():
  """8 clusters of 16, K = 4: nothing is left over, so each cluster in a batch is there with at least K images."""
  labels = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 16))
  owner = np.repeat(np.arange(128), 3)
  sampler = make(owner, labels=labels, batch_size=32)
  for batch in epoch_of(sampler, 0):
    assert full_groups(batch, owner, labels, GROUP) == 8
    images_of_cluster = np.bincount(labels[owner[batch]], minlength=8)
    assert set((images_of_cluster % GROUP).tolist()) == {0}
  # All images are in every round: with 3 captions each, an epoch is all captions once.
  assert sorted(epoch_of(sampler, 1).ravel().tolist()) == list(range(len(owner)))


def test_steps_in_any_order_and_other_objects_give_the_same():
  first, second = make(every_epochs=2), make(every_epochs=2)
  steps = np.random.default_rng(2).permutation(4 * first.steps_per_epoch)
  batches = {step: first.batch(step) for step in range(len(steps))}
  for step in steps[:60].tolist():
    epoch, captions = second.batch(step)
    assert epoch == batches[step][0] == step // 27
    np.testing.assert_array_equal(captions, batches[step][1])


def test_epochs_seeds_and_clusters_make_a_difference():
  sampler = make()
  first = epoch_of(sampler, 0)
  others = (epoch_of(sampler, 1), epoch_of(make(seed=4), 0), epoch_of(make(labels=LABELS[::-1]), 0))
  for other in others:
    assert (other != first).mean() > 0.9
  np.testing.assert_array_equal(epoch_of(make(), 0), first)


def test_each_phase_takes_its_own_clusters():
  other = np.roll(LABELS, 1)
  sampler = make(phases=0, every_epochs=2)
  sampler.publish(0, LABELS)
  sampler.publish(1, other)
  assert [sampler.phase(step) for step in (0, 53, 54, 107, 108)] == [0, 0, 1, 1, 2]
  for epoch, labels in ((0, LABELS), (1, LABELS), (2, other), (3, other)):
    np.testing.assert_array_equal(epoch_of(sampler, epoch), epoch_of(make(labels=labels), epoch))


def test_batches_of_a_phase_wait_for_its_clusters():
  sampler, batches = make(phases=1), []
  waiting = threading.Thread(target=lambda: batches.append(sampler.batch(27)))
  waiting.start()
  waiting.join(timeout=0.2)
  assert waiting.is_alive()
  sampler.batch(26)  # the phase in force is not held up
  sampler.publish(1, LABELS)
  waiting.join(timeout=10)
  assert batches[0][0] == 1
  np.testing.assert_array_equal(batches[0][1], make().batch(27)[1])


def test_closing_frees_who_waits_and_keeps_what_is_there():
  sampler, errors = make(phases=1), []

  def ask():
    try:
      sampler.batch(30)
    except RuntimeError as error:
      errors.append(str(error))

  waiting = threading.Thread(target=ask)
  waiting.start()
  sampler.close()
  waiting.join(timeout=10)
  assert errors == ['closed before the clusters of phase 1 were there']
  assert len(sampler.batch(0)[1]) == BATCH


def test_occurrences_count_from_the_left():
  assert occurrences(np.array([7, 5, 7, 7, 0, 5])).tolist() == [0, 0, 1, 2, 0, 1]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  counts=strategies.lists(strategies.integers(1, 7), min_size=12, max_size=50),
  num_clusters=strategies.integers(1, 9),
  group=strategies.sampled_from((1, 2, 3, 4)),
  groups=strategies.integers(1, 3),
  seed=strategies.integers(0, 2**31),
)
def test_ragged_ownership(counts, num_clusters, group, groups, seed):
  """Any number of captions per image, in any order, clusters of any size, empty ones too."""
  draw = np.random.default_rng(seed)
  owner = draw.permutation(np.repeat(np.arange(len(counts)), counts))
  labels = draw.integers(num_clusters, size=len(counts))
  batch_size = group * groups
  sampler = make(owner, labels=labels, seed=seed, batch_size=batch_size, group=group)
  batches = epoch_of(sampler, 2)
  assert batches.shape == (sum(counts) // batch_size, batch_size)
  for batch in batches:
    assert len(set(owner[batch].tolist())) == batch_size
  rounds = -(-len(batches) // (len(counts) // batch_size))
  used, per_image = np.bincount(batches.ravel(), minlength=len(owner)), np.bincount(owner[batches.ravel()])
  assert per_image.max() <= rounds
  for image, count in enumerate(counts):
    of_image = used[owner == image]
    assert of_image.max() == -(-of_image.sum() // count)
    assert of_image.max() - of_image.min() <= 1
  # A round's groups are of one cluster, but for those of what is left over: fewer than K images of each cluster.
  whole = (np.bincount(labels, minlength=num_clusters) // group).sum()
  chosen = neighbour_round(labels, group, batch_size, draw)
  assert chosen.shape == (len(counts) // batch_size, batch_size)
  left_out = len(counts) // group - chosen.size // group
  assert full_groups(chosen.ravel(), np.arange(len(counts)), labels, group) >= whole - left_out


def test_images_without_captions_are_no_rows():
  owner = np.array([0, 2, 2, 3, 5, 5])
  batches = epoch_of(make(owner, labels=np.zeros(7, int), batch_size=2, group=2), 0)
  assert set(owner[batches].ravel().tolist()) <= {0, 2, 3, 5}


def test_too_few_images_for_a_batch():
  with pytest.raises(
    UserError, match='batch_size is 24, but there are only 11 images, and a batch of config.data.samp'
  ):
    NeighbourSampler(np.repeat(np.arange(11), 5), 24, 0, images_per_cluster=4)


def test_the_configuration_decides():
  config = default_config()
  config.training.batch_size = 24
  assert isinstance(make_sampler(OWNER, config), ShuffledSampler)
  config.data.sampler, config.training.seed = 'neighbours', 3
  config.data.neighbours.update(images_per_cluster=4, every_epochs=2)
  sampler = make_sampler(OWNER, config)
  sampler.publish(0, LABELS)
  for epoch in (0, 1):
    np.testing.assert_array_equal(epoch_of(sampler, epoch), epoch_of(make(), epoch))


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('sampler', 'neighbors', r"config.data.sampler is 'neighbors', expected 'shuffled' or 'neighbours'"),
    ('neighbours.images_per_cluster', 7, r'batch_size \(128\) is not divisible by .*images_per_cluster \(7\)'),
    ('neighbours.cluster_size', 0, r'config.data.neighbours.cluster_size is 0, expected positive'),
    ('neighbours.every_epochs', 0, r'config.data.neighbours.every_epochs is 0, expected positive'),
    ('neighbours.features', 'words', r"features is 'words', expected 'regions' or 'embeddings'"),
  ],
)
def test_settings_that_cannot_work(key, value, message):
  config = default_config()
  config.data.sampler = 'neighbours'
  validate(config)
  config.data.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message):
    validate(config)
