"""The nearest pictures, exactly: one product with all embeddings, a part at a time."""

import numpy as np
from jaxtyping import Float, Int

from hrem_jax.search.snapshot import Snapshot

_CHUNK = 4096  # rows that are compared again at a time


def nearest(
  snapshot: Snapshot, query: Float[np.ndarray, ' d'], count: int, *, first: int = 0
) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
  """Rows and scores of the best pictures, best first; equal scores in the order of the ids.

  Float32 products say who comes into question, within the bound of their rounding; those are compared in float64, row
  by row in the same order of additions. So equal embeddings have equal scores wherever they lie, and the answer depends
  on nothing but the pictures.

  Args:
    snapshot: The pictures.
    query: Unit norm.
    count: How many, or all where there are fewer.
    first: Number of the segment from which on is searched.
  """
  scores = _products(snapshot, query, first)
  count = min(count, int(np.isfinite(scores).sum()))
  if count < 1:
    return np.zeros(0, int), np.zeros(0)
  threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
  # By how much the order of two float32 products of unit vectors may deceive.
  rounding = 2 * snapshot.manifest.size * float(np.finfo(np.float32).eps)
  rows = np.flatnonzero(scores >= threshold - rounding) + int(snapshot.starts[first])
  return best_of(snapshot, query, rows, count)


def best_of(
  snapshot: Snapshot, query: Float[np.ndarray, ' d'], rows: Int[np.ndarray, ' c'], count: int
) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
  """The best of some rows, as `nearest`."""
  wide = np.asarray(query, np.float64)
  parts = [
    (snapshot.vectors(rows[start : start + _CHUNK]).astype(np.float64) * wide).sum(axis=1)
    for start in range(0, len(rows), _CHUNK)
  ]
  scores = np.concatenate(parts) if parts else np.zeros(0)
  best = np.lexsort((snapshot.order[rows], -scores))[:count]
  return rows[best], scores[best]


def _products(snapshot: Snapshot, query: Float[np.ndarray, ' d'], first: int) -> Float[np.ndarray, ' n']:
  """Float32 scores of all rows of the segments from number `first` on; minus infinity where they are deleted."""
  begin = int(snapshot.starts[first])
  scores = np.empty(snapshot.manifest.rows - begin, np.float32)
  for row, vectors in snapshot.chunks(first):
    np.dot(vectors, query, out=scores[row - begin : row - begin + len(vectors)])
  scores[~snapshot.is_there[begin:]] = -np.inf
  return scores
