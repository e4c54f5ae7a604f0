"""Slow loops for METHOD section 6: ranks, ties and recall. Written from the page; imports nothing of hrem_jax.

Exact throughout: scores are compared as they come, expectations are fractions over an enumeration of every order.
"""

import math
from fractions import Fraction
from itertools import combinations


def dot(x, y):
  """Dot product of two lists of numbers."""
  total = 0
  for a, b in zip(x, y, strict=True):
    total += a * b
  return total


def similarity_of(images, texts):
  """Every image with every text, as nested lists."""
  return [[dot(image, text) for text in texts] for image in images]


def possible_ranks(matches, others, ties):
  """The equally likely 0-based ranks of the first match, one entry per order of the equal scores.

  `matches` and `others` are the scores of the true matches and of all other candidates.
  """
  best = max(matches)
  above = sum(1 for score in others if score > best)
  level_others = sum(1 for score in others if score == best)
  level_matches = sum(1 for score in matches if score == best)
  if ties == 'optimistic':
    return [above]
  if ties == 'pessimistic':
    return [above + level_others]
  assert ties == 'expected'
  # Every choice of the places that the level matches take among all level candidates is equally likely.
  return [above + places[0] for places in combinations(range(level_others + level_matches), level_matches)]


def queries(similarity, owner):
  """`(matches, others)` of every image that owns a text, then of every text."""
  num_images, num_texts = len(similarity), len(owner)
  images = []
  for i in range(num_images):
    matches = [similarity[i][t] for t in range(num_texts) if owner[t] == i]
    others = [similarity[i][t] for t in range(num_texts) if owner[t] != i]
    if matches:
      images.append((matches, others))
  texts = []
  for t in range(num_texts):
    others = [similarity[i][t] for i in range(num_images) if i != owner[t]]
    texts.append(([similarity[owner[t]][t]], others))
  return images, texts


def median(values):
  """Middle of the sorted values, the mean of the two middle ones where their number is even."""
  ordered = sorted(values)
  half = len(ordered) // 2
  return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def one_direction(asked, ties):
  """Metrics of one direction as fractions."""
  ranks = [possible_ranks(matches, others, ties) for matches, others in asked]
  metrics = {}
  for k in (1, 5, 10):
    hits = [Fraction(sum(1 for rank in possible if rank < k), len(possible)) for possible in ranks]
    metrics[f'r{k}'] = 100 * sum(hits) / len(hits)
  means = [Fraction(sum(possible), len(possible)) for possible in ranks]
  metrics['median_rank'] = math.floor(median(means)) + 1
  metrics['mean_rank'] = sum(means) / len(means) + 1
  return metrics


def metrics_of(similarity, owner, ties='expected'):
  """All metrics of both directions in one flat dict of floats."""
  images, texts = queries(similarity, owner)
  metrics, rsum = {}, Fraction(0)
  for direction, asked in (('i2t', images), ('t2i', texts)):
    for key, value in one_direction(asked, ties).items():
      metrics[f'{direction}/{key}'] = float(value)
      rsum += value if key in ('r1', 'r5', 'r10') else 0
  metrics['rsum'] = float(rsum)
  return metrics
