"""Neighbour batches from clusters to a training that is cut in two."""

import pathlib

import jax
import numpy as np
import pytest
import synthetic

from hrem_jax.data.features import RegionFeatures
from hrem_jax.data.precomputed import data_folder, load_split
from hrem_jax.errors import UserError
from hrem_jax.training import loop
from hrem_jax.training.neighbours import cluster, mean_regions, read_labels

NUM_IMAGES, STEPS_PER_EPOCH, NUM_STEPS = 40, 12, 36


@pytest.fixture(scope='module')
def config(directory):
  config = synthetic.tiny_config(directory)
  config.data.sampler = 'neighbours'
  config.data.neighbours.update(images_per_cluster=4, cluster_size=8, features='embeddings')
  # One program to compile: the graph has nothing to do with which examples come when.
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
  return config


def train_recorded(config, workdir: pathlib.Path, monkeypatch, *, die_at: int | None = None) -> dict[int, np.ndarray]:
  """Trains; the image ids of the batch of each step. Dies before the step `die_at`."""
  seen, update = {}, loop.CompiledSteps.__call__

  def recording(self, state, batch):
    step = int(state.step)
    if step == die_at:
      raise KeyboardInterrupt
    seen[step] = np.array(batch.image_ids)
    return update(self, state, batch)

  with monkeypatch.context() as patch:
    patch.setattr(loop.CompiledSteps, '__call__', recording)
    if die_at is None:
      loop.train(config, workdir)
    else:
      with pytest.raises(KeyboardInterrupt):
        loop.train(config, workdir)
  return seen


@pytest.fixture(scope='module')
def whole_run(directory, config) -> tuple[pathlib.Path, dict[int, np.ndarray]]:
  workdir = directory / 'whole'
  with pytest.MonkeyPatch.context() as monkeypatch:
    return workdir, train_recorded(config, workdir, monkeypatch)


def labels_of(workdir: pathlib.Path) -> list[np.ndarray]:
  files = sorted((workdir / 'neighbours').iterdir())
  assert [file.name for file in files] == ['0.npy', '1.npy', '2.npy']
  return [np.load(file, allow_pickle=False) for file in files]


def test_every_epoch_is_trained_on_groups_of_its_clusters(whole_run):
  workdir, batches = whole_run
  labels = labels_of(workdir)
  assert sorted(batches) == list(range(NUM_STEPS))
  for phase in range(3):
    assert labels[phase].shape == (NUM_IMAGES,)
    assert labels[phase].dtype == np.int32
    assert labels[phase].max() == NUM_IMAGES // 8 - 1
    rows = np.stack([batches[phase * STEPS_PER_EPOCH + step] for step in range(STEPS_PER_EPOCH)])
    for other in range(3):
      groups = labels[other][rows].reshape(-1, 4)
      whole = (groups == groups[:, :1]).all(axis=1).mean()
      # Of 10 groups of a round at most 2 are left out; the others are at worst the left over of five clusters.
      least = ((np.bincount(labels[phase]) // 4).sum() - 2) / 8
      assert whole >= least if phase == other else whole < least
    assert all(len(set(row.tolist())) == 16 for row in rows)


def test_the_first_clusters_are_of_regions_the_later_of_embeddings(whole_run, directory, config):
  split = load_split(data_folder(config.data), 'train')
  labels = labels_of(whole_run[0])
  regions = mean_regions(split.features)
  for phase in range(3):
    of_regions = cluster(regions, 5, seed=(config.training.seed, phase))
    assert (labels[phase] == of_regions).all() == (phase == 0)


def test_a_run_cut_in_a_phase_ends_bitwise_the_same(directory, config, whole_run, monkeypatch):
  """The newest checkpoint is that of step 30, in the middle of the third phase; step 31 and 32 are done twice."""
  workdir = directory / 'cut'
  train_recorded(config, workdir, monkeypatch, die_at=33)
  assert max(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()) == 30
  # A wrong file would show: what is trained on afterwards is what is in the workdir, and nothing is clustered again.
  monkeypatch.setattr('hrem_jax.training.neighbours.cluster', lambda *_, **__: pytest.fail('the clusters are there'))
  again = train_recorded(config, workdir, monkeypatch)
  assert sorted(again) == list(range(30, NUM_STEPS))
  for step, images in again.items():
    np.testing.assert_array_equal(images, whole_run[1][step])
  for ours, theirs in zip(labels_of(workdir), labels_of(whole_run[0]), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  jax.tree.map(
    np.testing.assert_array_equal,
    synthetic.state_on_disk(workdir, NUM_STEPS),
    synthetic.state_on_disk(whole_run[0], NUM_STEPS),
  )


def test_labels_of_the_workdir_are_those_that_are_used(directory, config, monkeypatch):
  """Cut before the first checkpoint; another clustering put in its place is trained on."""
  workdir = directory / 'exchanged'
  before = train_recorded(config, workdir, monkeypatch, die_at=2)
  np.save(workdir / 'neighbours' / '0.npy', (np.arange(NUM_IMAGES) % 10).astype(np.int32))
  after = train_recorded(config, workdir, monkeypatch, die_at=2)
  groups = after[0].reshape(4, 4) % 10
  assert (groups == groups[:, :1]).all()
  assert (before[0] != after[0]).any()


def test_damaged_labels_are_named(directory, config, tmp_path):
  path = tmp_path / '1.npy'
  np.save(path, np.zeros(40, np.int32))
  assert read_labels(path, 40).tolist() == [0] * 40
  for array in (np.zeros(37, np.int32), np.zeros(40, np.int64), np.full(40, -1, np.int32), np.full(40, 40, np.int32)):
    np.save(path, array)
    with pytest.raises(
      UserError, match='1.npy: .* expected clusters from 0 of the 40 images, int32, .*; without the file'
    ):
      read_labels(path, 40)
  path.write_bytes(b'\x93NUMPY')
  with pytest.raises(UserError, match='1.npy: not a whole .npy file'):
    read_labels(path, 40)


def test_clusters_of_well_separated_points_are_found():
  rng = np.random.default_rng(0)
  true = rng.permutation(np.repeat(np.arange(5), 37))
  points = (10 * np.eye(5)[true] + 0.1 * rng.normal(size=(185, 5))).astype(np.float32)
  labels = cluster(points, 5, seed=(0, 0))
  assert labels.shape == (185,)
  assert labels.dtype == np.int32
  assert len({(mine, theirs) for mine, theirs in zip(labels.tolist(), true.tolist(), strict=True)}) == 5
  np.testing.assert_array_equal(cluster(points, 5, seed=(0, 0)), labels)


def test_seed_and_phase_draw_other_centres():
  points = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
  first, other_phase, other_seed = (cluster(points, 11, seed=seed) for seed in ((0, 0), (0, 1), (1, 0)))
  for other in (other_phase, other_seed):
    # As many pairs of clusters as there were clusters would be a new numbering.
    assert len(set(zip(first.tolist(), other.tolist(), strict=True))) > 11


def test_a_broken_model_gives_no_clusters():
  points = np.ones((20, 3), np.float32)
  points[7, 1] = np.nan
  with pytest.raises(UserError, match='NaN or infinite embeddings of training images'):
    cluster(points, 2, seed=(0, 0))


@pytest.mark.parametrize('dtype', [np.float16, np.float32])
def test_mean_regions_ignores_padding_and_chunks(tmp_path, dtype):
  rng = np.random.default_rng(0)
  regions, counts = rng.normal(size=(23, 7, 5)).astype(dtype), rng.integers(1, 8, size=23)
  for image, count in enumerate(counts):
    regions[image, count:] = np.nan  # junk where no region is
  np.save(tmp_path / 'train_ims.npy', regions)
  np.save(tmp_path / 'train_num_regions.npy', counts)
  expected = np.stack([regions[image, :count].astype(np.float64).mean(0) for image, count in enumerate(counts)])
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  means = mean_regions(RegionFeatures(tmp_path / 'train_ims.npy'), chunk=4)
  assert means.shape == (23, 5)
  assert means.dtype == np.float32
  np.testing.assert_allclose(means, expected, atol=1e-6)
