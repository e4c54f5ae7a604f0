"""Which queries a report shows, and what stands at the top of their lists. Arrays in, small values out."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.ops.ranking import Ranks, mean_ranks
from hrem_jax.retrieval.scores import Scores, Side

NUM_EXAMPLES, NUM_BEST = 6, 5
_DECIMALS = 6  # scores of unit-norm float32 embeddings closer than this differ by rounding only


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One entry of a ranked list."""

  row: int  # of the image or the text
  position: int  # in the list, from 1
  score: float
  is_right: bool


@dataclasses.dataclass(frozen=True)
class Example:
  """One query and its list, as far as it is shown."""

  query: int  # row of the text or the image that asks
  best: tuple[Candidate, ...]  # the first few
  right: tuple[Candidate, ...]  # every true match, the best one first
  num_candidates: int

  @property
  def is_hit(self) -> bool:
    return self.right[0].position == 1

  @property
  def right_is_shown(self) -> bool:
    """Whether a true match is among the first few."""
    return self.right[0].position <= len(self.best)


@dataclasses.dataclass(frozen=True)
class Examples:
  """The examples of one direction, and how many queries they were taken from."""

  hits: tuple[Example, ...]
  misses: tuple[Example, ...]
  num_hits: int  # queries with a true match in the first place
  num_misses: int


def choose_examples(scores: Scores, owner: Int[np.ndarray, ' t']) -> tuple[Examples, Examples]:
  """Examples of both directions, half of them mistakes; the same scores always give the same ones.

  Queries are divided into hits (a true match stands first, and alone there: wrong ones that tie go before it) and
  misses. From each, evenly spaced in the order of the data set, come half of `NUM_EXAMPLES`, or more where the other
  has too few.

  Args:
    scores: Of every image with every text.
    owner: Row of each text's image. An image without a text is no query.

  Returns:
    Text to image, whose queries are texts, and image to text, whose queries are images.

  Raises:
    FloatingPointError: A score is NaN or infinite.
  """
  ranks, (num_images, num_texts) = scores.ranks(owner), scores.shape
  rows = np.arange(num_images)

  def find(queries: Int[np.ndarray, ' q'], side: Side) -> tuple[Example, ...]:
    found = []
    for part, block in scores.blocks(queries, side=side):
      for query, row in zip(queries[part].tolist(), block, strict=True):
        found.append(best_of(query, row, owner == query if side == 'images' else rows == owner[query]))
    return tuple(found)

  return (
    _examples(np.arange(num_texts), ranks.text_to_image, lambda queries: find(queries, 'texts')),
    _examples(np.unique(owner), ranks.image_to_text, lambda queries: find(queries, 'images')),
  )


def _examples(queries: Int[np.ndarray, ' q'], ranks: Ranks, find) -> Examples:
  is_hit = mean_ranks(ranks, ties='pessimistic') == 0
  hits, misses = queries[is_hit], queries[~is_hit]
  half = NUM_EXAMPLES // 2
  chosen = (
    find(evenly_spaced(group, max(half, NUM_EXAMPLES - len(other))))
    for group, other in ((hits, misses), (misses, hits))
  )
  return Examples(*chosen, num_hits=len(hits), num_misses=len(misses))


def evenly_spaced(rows: Int[np.ndarray, ' n'], count: int) -> Int[np.ndarray, ' c']:
  """`count` of the rows in their order, each from the middle of an equal share; all where there are no more."""
  count = min(count, len(rows))
  return rows[(2 * np.arange(count) + 1) * len(rows) // (2 * max(count, 1))]


def best_of(query: int, scores: Float[np.ndarray, ' c'], is_right: Bool[np.ndarray, ' c']) -> Example:
  """Ranks the candidates of one query; among equal scores wrong ones come first, then the order of the data set.

  Args:
    query: Row of the query.
    scores: Of every candidate.
    is_right: Which of them are true matches; at least one.
  """
  scores = np.round(scores, _DECIMALS)
  order = np.lexsort((np.arange(len(scores)), is_right, -scores))

  def candidate(position: int) -> Candidate:
    row = int(order[position])
    return Candidate(row, int(position) + 1, float(scores[row]), bool(is_right[row]))

  best = tuple(candidate(position) for position in range(min(NUM_BEST, len(order))))
  right = tuple(candidate(position) for position in np.flatnonzero(is_right[order]))
  return Example(query, best, right, len(order))
