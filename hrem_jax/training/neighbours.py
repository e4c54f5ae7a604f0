"""Clusters of the training images, for neighbour batches (METHOD section 5): made, kept in the workdir, published."""

import pathlib
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from hrem_jax.data.features import RegionFeatures, open_array
from hrem_jax.data.samplers import NeighbourSampler
from hrem_jax.errors import UserError
from hrem_jax.files import replacing
from hrem_jax.retrieval.encode import DataEncoder, require_embeddings
from hrem_jax.training.progress import Progress
from hrem_jax.training.setup import Setup
from hrem_jax.training.state import TrainState

KMEANS_PASSES = 5  # over all images


class Neighbours:
  """Publishes the clusters of a phase to the sampler when the first of its steps is next; a context.

  They are written to `WORKDIR/neighbours/PHASE.npy` before any batch is made of them, so a restart in the middle of a
  phase reads what the phase began with. Where batches are not of neighbours it does nothing.
  """

  def __init__(self, setup: Setup, workdir: pathlib.Path, progress: Progress):
    self._progress, self._config, self._split = progress, setup.run.config, setup.train
    self._folder, self._phase = workdir / 'neighbours', None
    self._mean_regions = None  # made when first needed
    sampler = setup.batches.sampler
    self._sampler = sampler if isinstance(sampler, NeighbourSampler) else None
    if self._sampler is not None and self._config.data.neighbours.features == 'embeddings':
      require_embeddings(setup.run.method, "config.data.neighbours.features='embeddings'")

  def __enter__(self):
    return self

  def __exit__(self, *error):
    if self._sampler is not None:
      self._sampler.close()  # threads that read ahead into the next phase would wait for ever

  def before_step(self, step: int, state: TrainState, encoder: DataEncoder) -> None:
    """To be called before the batch of `step`, counted from 0, is taken; `state` is the one that it will change."""
    if self._sampler is None or self._sampler.phase(step) == self._phase:
      return
    self._phase = self._sampler.phase(step)
    with self._progress.pause():
      self._sampler.publish(self._phase, self._labels(self._phase, state, encoder))

  def _labels(self, phase: int, state: TrainState, encoder: DataEncoder) -> Int[np.ndarray, ' i']:
    """Process 0 finds them in the workdir or makes them; all processes get its."""
    path, started = self._folder / f'{phase}.npy', time.perf_counter()
    is_stored = bool(multihost_utils.broadcast_one_to_all(np.asarray(path.is_file())))
    kind = 'stored' if is_stored else 'regions' if phase == 0 else self._config.data.neighbours.features
    embeddings = None
    if kind == 'embeddings':  # by all processes together
      embeddings = encoder.encode_images(state.variables, self._split.features)
    labels = np.zeros(self._split.num_images, np.int32)
    if jax.process_index() == 0:
      labels = read_labels(path, len(labels)) if is_stored else self._make(phase, embeddings, path)
    seconds, num_clusters = time.perf_counter() - started, len(np.unique(labels))
    self._progress.say(f'neighbours of phase {phase}: {num_clusters} clusters ({kind}) in {seconds:.1f} s')
    return multihost_utils.broadcast_one_to_all(labels)

  def _make(self, phase: int, embeddings: Float[np.ndarray, 'i d'] | None, path: pathlib.Path) -> Int[np.ndarray, ' i']:
    """Clusters of embeddings or, where there are none, of regions: an encoder without training tells nothing."""
    if embeddings is None and self._mean_regions is None:
      self._mean_regions = mean_regions(self._split.features)  # reads the whole file: once per start
    num_clusters = max(self._split.num_images // self._config.data.neighbours.cluster_size, 1)
    seed = (self._config.training.seed, phase)
    labels = cluster(self._mean_regions if embeddings is None else embeddings, num_clusters, seed=seed)
    with replacing(path) as temporary:
      np.save(temporary, labels, allow_pickle=False)
    return labels


def mean_regions(features: RegionFeatures, *, chunk: int = 256) -> Float[np.ndarray, 'i f']:
  """The mean of each image's real regions, in unit norm, read a chunk of images at a time."""
  means = np.empty((len(features), features.region_size), np.float32)
  for start in range(0, len(features), chunk):
    rows = np.arange(start, min(start + chunk, len(features)))
    regions, mask = features.rows(rows)  # padding is zero
    means[rows] = regions.sum(axis=1, dtype=np.float32) / mask.sum(axis=1, keepdims=True)
  return means / (np.linalg.norm(means, axis=1, keepdims=True) + 1e-8)


def cluster(features: Float[np.ndarray, 'i f'], num_clusters: int, *, seed: tuple[int, int]) -> Int[np.ndarray, ' i']:
  """K-means: the cluster of each row, from 0. A function of its arguments, however many threads there are.

  Raises:
    UserError: A feature is NaN or infinite.
  """
  from sklearn.cluster import MiniBatchKMeans  # slow to import, and needed by few trainings

  if not np.isfinite(features).all():
    raise UserError('NaN or infinite embeddings of training images: no clusters for neighbour batches')
  kmeans = MiniBatchKMeans(
    num_clusters,
    n_init=1,
    batch_size=max(4096, num_clusters),
    max_iter=KMEANS_PASSES,
    max_no_improvement=None,  # stopping early would compare sums whose last bit depends on the threads
    random_state=int(np.random.SeedSequence(seed).generate_state(1)[0]),
  )
  return kmeans.fit_predict(features).astype(np.int32)


def read_labels(path: pathlib.Path, num_images: int) -> Int[np.ndarray, ' i']:
  """Clusters that an earlier start wrote.

  Raises:
    UserError: The file is damaged or of another data set.
  """
  labels = np.array(open_array(path, num_dimensions=1))
  # The sampler's memory grows with the largest number.
  in_range = labels.dtype == np.int32 and labels.min(initial=0) >= 0 and labels.max(initial=0) < num_images
  if not in_range or len(labels) != num_images:
    raise UserError(
      f'{path}: {len(labels)} numbers of type {labels.dtype}, expected clusters from 0 of the {num_images} images, '
      'int32, fewer than there are images; without the file they are made anew'
    )
  return labels
