"""A batch of the test split as the association graph sees it, and what the interaction makes of it."""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.batch import Batch, TextInputs
from hrem_jax.data.pipeline import image_inputs
from hrem_jax.data.precomputed import Split
from hrem_jax.ops.ranking import ranks_from_similarity, retrieval_metrics
from hrem_jax.report.answers import pad_captions
from hrem_jax.report.examples import evenly_spaced
from hrem_jax.retrieval.run import Run

NUM_PAIRS = 12
VIEW = 'relations'  # of a method


@dataclasses.dataclass(frozen=True)
class BatchView:
  """`i` pictures with one caption each; images come first in `n`, the row asks."""

  images: Int[np.ndarray, ' i']
  texts: Int[np.ndarray, ' i']
  connection: Bool[np.ndarray, 'n n']
  relevance: Float[np.ndarray, 'n n']
  before: Float[np.ndarray, 'i i']  # similarity of the embeddings
  after: Float[np.ndarray, 'i i']  # of the enhanced ones

  def blocks(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """`i2i`, `i2t`, `t2i`, `t2t` of an `[n, n]` matrix."""
    i, t = slice(None, len(self.images)), slice(len(self.images), None)
    return {'i2i': matrix[i, i], 'i2t': matrix[i, t], 't2i': matrix[t, i], 't2t': matrix[t, t]}


def choose_batch(owner: Int[np.ndarray, ' t']) -> tuple[Int[np.ndarray, ' b'], Int[np.ndarray, ' b']]:
  """Images evenly spaced in the order of the data set among those with a caption, and the first caption of each."""
  images, first = np.unique(owner, return_index=True)
  chosen = evenly_spaced(np.arange(len(images)), NUM_PAIRS)
  return images[chosen], first[chosen]


def batch_view(run: Run, variables: dict, split: Split) -> BatchView | None:
  """The relations of a batch, computed as in training but without dropout; None where the method has none."""
  if VIEW not in run.method.views:
    return None
  images, texts = choose_batch(split.owner)
  words = TextInputs(*pad_captions(run, [split.captions[text] for text in texts]))
  batch = Batch(image_inputs(split.features, images, run.method.wants), words, images)
  # Not in the inputs' sharding: a batch this small need not divide by the devices.
  view = jax.jit(functools.partial(run.method.apply, method=f'view_{VIEW}'))(variables, batch)
  return BatchView(images, texts, **jax.tree.map(np.asarray, view))


def recalls(similarity: Float[np.ndarray, 'i i']) -> tuple[float, float]:
  """R@1 within the batch in percent, picture to caption and caption to picture."""
  metrics = retrieval_metrics(ranks_from_similarity(similarity, np.arange(len(similarity))))
  return metrics['i2t/r1'], metrics['t2i/r1']
