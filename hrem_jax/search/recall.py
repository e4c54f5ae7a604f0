"""What an approximate search finds of the exactly nearest pictures."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from hrem_jax.search import exact
from hrem_jax.search.encoders import Encoder
from hrem_jax.search.snapshot import Snapshot

# A state, a query and how many to the rows and scores of the best.
Nearest = Callable[[Snapshot, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def measure_recall(
  snapshot: Snapshot, nearest: Nearest, encoder: Encoder, count: int, num_queries: int
) -> tuple[float, str]:
  """The share of the `count` best that are found, on average over queries spread over the index.

  Queries are captions of its pictures, or, where there are none, pictures, for which the others are looked for.

  Returns:
    The share, and how many queries of which kind, for people.
  """
  names = snapshot.ids[:: max(len(snapshot) // num_queries, 1)][:num_queries]
  rows = np.array([snapshot.row(name) for name in names], int)
  captions = [caption for row in rows for caption in snapshot.item(int(row))['captions'][:1]]
  if captions:
    queries, skipped = encoder.texts(captions), 0
  else:
    queries, skipped = snapshot.vectors(rows), 1
  kind = 'captions' if captions else 'pictures'
  return recall_of(snapshot, nearest, queries, count, skipped), f'{len(queries)} {kind}'


def recall_of(
  snapshot: Snapshot, nearest: Nearest, queries: Float[np.ndarray, 'q d'], count: int, skipped: int = 0
) -> float:
  """The share of the `count` best behind the `skipped` very best; what has the same score as one of them is one."""
  shares = []
  for query in queries:
    _, expected = exact.nearest(snapshot, query, count + skipped)
    _, found = nearest(snapshot, query, count + skipped)
    if len(expected) > skipped:
      is_right = found[skipped:] >= expected[-1]
      shares.append(is_right.sum() / len(expected[skipped:]))
  return float(np.mean(shares)) if shares else 1.0
