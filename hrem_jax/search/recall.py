"""What an approximate search finds of the exactly nearest pictures."""

import numpy as np
from jaxtyping import Float

from hrem_jax.search.encoders import Encoder
from hrem_jax.search.index import Index


def measure_recall(index: Index, backend: str, encoder: Encoder, count: int, num_queries: int) -> tuple[float, str]:
  """The share of the `count` best that are found, on average over queries spread over the index.

  Queries are captions of its pictures, or, where there are none, pictures, for which the others are looked for.

  Returns:
    The share, and how many queries of which kind, for people.
  """
  names = index.ids()
  names = names[:: max(len(names) // num_queries, 1)][:num_queries]
  captions = [caption for name in names for caption in index.item(name).captions[:1]]
  if captions:
    queries, skipped = encoder.texts(captions)[:, None], 0
  else:
    queries, skipped = [index.vectors(name) for name in names], 1
  kind = 'captions' if captions else 'pictures'
  return recall_of(index, backend, queries, count, skipped), f'{len(queries)} {kind}'


def recall_of(
  index: Index, backend: str, queries: list[np.ndarray] | Float[np.ndarray, 'n q d'], count: int, skipped: int = 0
) -> float:
  """The share of the `count` best behind the `skipped` very best; what has the same score as one of them is one."""
  shares = []
  for query in queries:
    expected, found = (
      np.array([each.score for each in index.nearest(query, count + skipped, backend=way)])
      for way in ('exact', backend)
    )
    if len(expected) > skipped:
      is_right = found[skipped:] >= expected[-1]
      shares.append(is_right.sum() / len(expected[skipped:]))
  return float(np.mean(shares)) if shares else 1.0
