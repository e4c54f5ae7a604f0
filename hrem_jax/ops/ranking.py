"""Ranks under ties, and recall metrics from them (METHOD section 6).

Everything here runs on the host in NumPy: ranks are counts, and counts must be exact. `similarity` is images x texts;
`owner[t]` is the row of the image that text `t` belongs to, in any order and with any number of texts per image.

A rank is the number of candidates that score higher than the best true match. Three counts per query hold all that any
tie rule needs: the negatives above that match, the negatives level with it, and the true matches level with it (only
an image can have several). Worked by hand, one caption per image:

    similarity     2 1 1    image 0 finds its text first
                   3 3 1    image 1: one negative level: rank 0 or 1, expected 1/2
                   4 4 4    image 2: two level: rank 0, 1 or 2, expected 1
    text 0: two images above its own 2 -> rank 2;  text 1: one above 3 -> rank 1;  text 2: none -> rank 0
    R@1 of image-to-text: optimistic 100, pessimistic 33.3, expected (1 + 1/2 + 1/3) / 3 = 61.1 percent
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

RECALL_AT = (1, 5, 10)
TieRule = Literal['expected', 'pessimistic', 'optimistic']
_FLUSH_EVERY = np.iinfo(np.uint8).max


class Ranks(NamedTuple):
  """Counts per query, relative to its best true match."""

  greater: Int[np.ndarray, 'q']  # negatives that score higher
  tied_negatives: Int[np.ndarray, 'q']  # negatives that score the same
  tied_positives: Int[np.ndarray, 'q']  # true matches that score the same, itself included: at least 1


class RetrievalRanks(NamedTuple):
  """Both directions of one evaluation."""

  image_to_text: Ranks  # one query per image that owns a text, in image order
  text_to_image: Ranks  # one query per text, in text order


class RankCounter:
  """Counts both directions from one image's row of scores at a time; the rows may come in any order.

  `true_scores[t]` must be the very number that stands at `[owner[t], t]` of the rows: a score computed a second time
  can differ in its last bit, and then a tie is not seen.
  """

  def __init__(self, true_scores: Float[np.ndarray, 't'], owner: Int[np.ndarray, 't'], num_images: int):
    num_texts = len(true_scores)
    self._true_scores, self._owned = true_scores, np.bincount(owner, minlength=num_images)
    self._best = np.full(num_images, -np.inf, dtype=true_scores.dtype)
    with np.errstate(invalid='ignore'):  # NaN is named when its row is added
      np.maximum.at(self._best, owner, true_scores)
    self._tied_positives = np.bincount(owner[true_scores == self._best[owner]], minlength=num_images)
    self._image_above, self._image_level = np.zeros((2, num_images), dtype=np.int64)
    self._text_above, self._text_level = np.zeros((2, num_texts), dtype=np.int64)
    # Column sums of booleans are three times faster in bytes, which hold 255 rows.
    self._recent_above, self._recent_level = np.zeros((2, num_texts), dtype=np.uint8)
    self._num_recent = 0
    self._is = np.empty(num_texts, dtype=bool)

  def add(self, image: int, scores: Float[np.ndarray, 't']) -> None:
    """Counts image `image` against all texts; raises FloatingPointError if a score is NaN or infinite."""
    if not (np.isfinite(scores.max()) and np.isfinite(scores.min())):
      text = int(np.flatnonzero(~np.isfinite(scores))[0])
      raise FloatingPointError(f'the score of image {image} and text {text} is {scores[text]}; it must be finite')
    self._image_above[image] = np.count_nonzero(np.greater(scores, self._best[image], out=self._is))
    self._image_level[image] = np.count_nonzero(np.equal(scores, self._best[image], out=self._is))
    self._recent_above += np.greater(scores, self._true_scores, out=self._is).view(np.uint8)
    self._recent_level += np.equal(scores, self._true_scores, out=self._is).view(np.uint8)
    self._num_recent += 1
    if self._num_recent == _FLUSH_EVERY:
      self._flush()

  def _flush(self) -> None:
    for total, recent in ((self._text_above, self._recent_above), (self._text_level, self._recent_level)):
      total += recent
      recent[:] = 0
    self._num_recent = 0

  def ranks(self) -> RetrievalRanks:
    """The counts, after every image has been added once."""
    self._flush()
    asked = self._owned > 0
    tied_positives = self._tied_positives[asked]
    # The own captions of an image are no competitors: level ones count as matches, none can stand above the best.
    images = Ranks(self._image_above[asked], self._image_level[asked] - tied_positives, tied_positives)
    texts = Ranks(self._text_above, self._text_level - 1, np.ones_like(self._text_level))
    return RetrievalRanks(images, texts)


def check_owner(owner: Int[np.ndarray, 't'], num_images: int, num_texts: int) -> Int[np.ndarray, 't']:
  """`owner` as an array; raises ValueError unless it names one of `num_images` rows for each of `num_texts` texts."""
  owner = np.asarray(owner)
  if num_images == 0 or num_texts == 0:
    raise ValueError(f'ranking needs images and texts, found {num_images} and {num_texts}')
  if owner.shape != (num_texts,) or not np.issubdtype(owner.dtype, np.integer):
    raise ValueError(f'owner must be {num_texts} integers, one per text, found {owner.dtype}{list(owner.shape)}')
  if owner.min() < 0 or owner.max() >= num_images:
    raise ValueError(f'owner must lie in 0..{num_images - 1}, found {owner.min()}..{owner.max()}')
  return owner


def ranks_from_similarity(similarity: Float[np.ndarray, 'i t'], owner: Int[np.ndarray, 't']) -> RetrievalRanks:
  """Ranks of both directions from a full score matrix (METHOD section 6); it may be memory-mapped.

  Args:
    similarity: Images x texts, compared as the numbers that they are.
    owner: Row of each text's image. An image without texts asks no question but stays a candidate for every text.

  Returns:
    The counts behind every tie rule.

  Raises:
    FloatingPointError: A score is NaN or infinite.
    ValueError: Wrong shapes, or an owner that is no row.
  """
  if similarity.ndim != 2:
    raise ValueError(f'similarity must be images x texts, found shape {similarity.shape}')
  num_images, num_texts = similarity.shape
  owner = check_owner(owner, num_images, num_texts)
  dtype = np.result_type(similarity.dtype, np.float32)  # half precision compares the same, only slower
  counter = RankCounter(similarity[owner, np.arange(num_texts)].astype(dtype), owner, num_images)
  for image in range(num_images):
    counter.add(image, np.asarray(similarity[image], dtype=dtype))
  return counter.ranks()


def resolve_ties(ranks: Ranks, ties: TieRule) -> Ranks:
  """Moves tied negatives behind (`optimistic`) or before (`pessimistic`) the match; `expected` keeps them level."""
  none = np.zeros_like(ranks.tied_negatives)
  resolved = {
    'expected': ranks,
    'pessimistic': ranks._replace(greater=ranks.greater + ranks.tied_negatives, tied_negatives=none),
    'optimistic': ranks._replace(tied_negatives=none),
  }
  if ties not in resolved:
    raise ValueError(f'ties must be one of {sorted(resolved)}, found {ties!r}')
  return resolved[ties]


def mean_ranks(ranks: Ranks, *, ties: TieRule = 'expected') -> Float[np.ndarray, 'q']:
  """0-based rank of each query: `greater + n / (m + 1)` with `n` negatives and `m` true matches in random order."""
  greater, negatives, positives = resolve_ties(ranks, ties)
  # One division, rounded once: equal fractions are equal floats, and two that average to a whole number do so exactly.
  return (greater * (positives + 1) + negatives) / (positives + 1)


def hit_probability(ranks: Ranks, k: int, *, ties: TieRule = 'expected') -> Float[np.ndarray, 'q']:
  """Probability that the first true match of each query is among the first `k` candidates; 0 or 1 without ties.

  The match misses if the `k - greater` places left to the level candidates all go to negatives:
  `prod_j (n - j) / (n + m - j)` over those places.
  """
  greater, negatives, positives = resolve_ties(ranks, ties)
  miss = np.ones(len(greater))
  for place in range(k):
    left = np.maximum(negatives - place, 0) / np.maximum(negatives + positives - place, 1)
    miss = np.where(place < k - greater, miss * left, miss)
  return 1.0 - miss


def recall_metrics(ranks: Ranks, *, ties: TieRule = 'expected') -> dict[str, float]:
  """Metrics of one direction (METHOD section 6).

  Args:
    ranks: At least one query.
    ties: `expected` is the exact mean over all orders of equal scores, for every recall and the mean rank; the median
      is that of the expected ranks. `pessimistic` and `optimistic` put the tied negatives before or behind the match.

  Returns:
    `r1`, `r5`, `r10` in percent, `median_rank` = floor(median) + 1 and `mean_rank` = mean + 1. The order of the queries
    doesn't matter, not even to the last bit.
  """
  num_queries = len(ranks.greater)
  metrics = {}
  for k in RECALL_AT:
    metrics[f'r{k}'] = 100.0 * math.fsum(hit_probability(ranks, k, ties=ties)) / num_queries
  each = mean_ranks(ranks, ties=ties)
  metrics['median_rank'] = float(np.floor(np.median(each))) + 1.0
  metrics['mean_rank'] = math.fsum(each) / num_queries + 1.0
  return metrics


def retrieval_metrics(ranks: RetrievalRanks, *, ties: TieRule = 'expected') -> dict[str, float]:
  """Both directions in one flat dict: `i2t/r1` ... `t2i/mean_rank`, and `rsum`, the sum of the six recalls."""
  metrics = {}
  for direction, one_way in (('i2t', ranks.image_to_text), ('t2i', ranks.text_to_image)):
    metrics |= {f'{direction}/{key}': value for key, value in recall_metrics(one_way, ties=ties).items()}
  metrics['rsum'] = sum(metrics[f'{direction}/r{k}'] for direction in ('i2t', 't2i') for k in RECALL_AT)
  return metrics
