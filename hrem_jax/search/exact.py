"""The nearest pictures, exactly: one product with all embeddings, a block at a time."""

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.search.blocks import Snapshot

_CHUNK = 4096  # rows that are compared again at a time
_CACHED = 2**18  # numbers that are made float32 at a time: a megabyte stays in the cache


def nearest(
  snapshot: Snapshot, queries: Float[np.ndarray, 'q d'], count: int, among: Bool[np.ndarray, ' n'] | None = None
) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
  """Rows and scores of the best pictures, best first; equal scores in the order of the ids.

  Float32 products say who comes into question, within the bound of their rounding; those are compared in float64, row
  by row in the same order of additions. So equal embeddings have equal scores wherever they lie, and the answer depends
  on nothing but the pictures.

  Args:
    snapshot: The pictures.
    queries: Unit norm; a picture's score is the greatest of any query and any of its embeddings.
    count: How many, or all where there are fewer.
    among: The rows that are looked at; all if None.
  """
  scores = _products(snapshot, np.ascontiguousarray(queries, np.float32), among)
  count = min(count, len(scores) if among is None else int(among.sum()))
  if count < 1:
    return np.zeros(0, int), np.zeros(0)
  threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
  # By how much the order of two float32 products of unit vectors may deceive.
  rounding = 2 * queries.shape[1] * float(np.finfo(np.float32).eps)
  return best_of(snapshot, queries, np.flatnonzero(scores >= threshold - rounding), count)


def best_of(
  snapshot: Snapshot, queries: Float[np.ndarray, 'q d'], rows: Int[np.ndarray, ' c'], count: int
) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
  """The best of some rows, as `nearest`."""
  if not len(rows):
    return np.zeros(0, int), np.zeros(0)
  scores = np.concatenate(
    [_exact_scores(snapshot.vectors(rows[i : i + _CHUNK]), queries) for i in range(0, len(rows), _CHUNK)]
  )
  best = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
  ties = np.flatnonzero(scores >= scores[best].min())
  best = sorted(ties.tolist(), key=lambda i: (-scores[i], snapshot.ids[rows[i]]))[:count]
  return rows[best], scores[best]


def _exact_scores(vectors: Float[np.ndarray, 'c v d'], queries: Float[np.ndarray, 'q d']) -> Float[np.ndarray, ' c']:
  wide = vectors.astype(np.float64)
  each = [(wide * query.astype(np.float64)).sum(axis=2).max(axis=1) for query in queries]
  return np.max(each, axis=0)


def _products(
  snapshot: Snapshot, queries: Float[np.ndarray, 'q d'], among: Bool[np.ndarray, ' n'] | None
) -> Float[np.ndarray, ' n']:
  """Float32 scores of all rows; minus infinity where they are not looked at."""
  scores = np.full(len(snapshot), -np.inf, np.float32)
  for start, vectors in snapshot.parts():
    if among is not None and not among[start : start + len(vectors)].any():
      continue
    chunk = max(_CACHED // (vectors.shape[1] * vectors.shape[2]), 1) if vectors.dtype == np.float16 else len(vectors)
    for first in range(0, len(vectors), chunk):
      part = vectors[first : first + chunk].astype(np.float32, copy=False)
      its = scores[start + first : start + first + len(part)]
      for query in queries:
        np.maximum(its, (part.reshape(-1, part.shape[2]) @ query).reshape(part.shape[:2]).max(axis=1), out=its)
  if among is not None:
    scores[~among] = -np.inf
  return scores
