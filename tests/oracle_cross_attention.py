"""Slow loops for cross-modal attention, written from the paper (SCAN, section 3); imports nothing of hrem_jax.

Contexts are computed as what they are: weighted sums of fragments.
"""

import math

import numpy as np
from oracle import dot, leaky_relu, norm, unit

NORMALISATIONS = {
  'clipped_l2norm': lambda row: unit([leaky_relu(value) for value in row]),
  'l2norm': unit,
  'clipped': lambda row: [leaky_relu(value) for value in row],
  'softmax': lambda row: softmax(row),
  'no_norm': lambda row: row,
}
AGGREGATIONS = {
  'mean': lambda values, _: sum(values) / len(values),
  'lse': lambda values, factor: math.log(sum(math.exp(factor * value) for value in values)) / factor,
  'max': lambda values, _: max(values),
  'sum': lambda values, _: sum(values),
}


def softmax(row):
  total = sum(math.exp(value) for value in row)
  return [math.exp(value) / total for value in row]


def pair_score(asked, askers, normalisation, inverse_temperature, aggregation, lse_factor):
  """Of two lists of real fragments."""
  normalised = [NORMALISATIONS[normalisation]([dot(y, x) for x in askers]) for y in asked]
  cosines = []
  for place, x in enumerate(askers):
    weights = softmax([inverse_temperature * row[place] for row in normalised])
    context = [sum(a * y[channel] for a, y in zip(weights, asked, strict=True)) for channel in range(len(x))]
    cosines.append(dot(x, context) / max(norm(x) * norm(context), 1e-8))
  return AGGREGATIONS[aggregation](cosines, lse_factor)


def cross_attention_scores(regions, region_mask, words, word_mask, *, asks, tiling=None, **settings):
  """`[i, t]`; padding is cut off before anything else."""
  del tiling
  scores = np.zeros((len(regions), len(words)))
  for i in range(len(regions)):
    for t in range(len(words)):
      sides = list(regions[i][region_mask[i]].tolist()), list(words[t][word_mask[t]].tolist())
      asked, askers = sides if asks == 'words' else sides[::-1]
      scores[i, t] = pair_score(asked, askers, **settings)
  return scores
