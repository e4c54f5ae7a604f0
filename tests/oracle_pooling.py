"""Slow loops for pooling by rank, written from the paper (GPO, section 4); imports nothing of hrem_jax."""

import math

import numpy as np
from oracle import dot


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


def gru(inputs, weights):
  """States after each input, from zero; gates in the order reset, update, candidate."""
  kernel, bias = weights['input']['kernel'], weights['input']['bias']
  recurrent, recurrent_bias = weights['recurrent_kernel'], weights['recurrent_bias']
  size = len(recurrent)
  state, states = [0.0] * size, []
  for x in inputs:
    given = [dot(x, kernel[:, gate]) + bias[gate] for gate in range(3 * size)]
    kept = [dot(state, recurrent[:, gate]) + recurrent_bias[gate] for gate in range(3 * size)]
    new = []
    for unit in range(size):
      reset = sigmoid(given[unit] + kept[unit])
      update = sigmoid(given[size + unit] + kept[size + unit])
      candidate = math.tanh(given[2 * size + unit] + reset * kept[2 * size + unit])
      new.append((1 - update) * candidate + update * state[unit])
    state = new
    states.append(state)
  return states


def rank_weights(count, params, *, size, temperature):
  """theta of `count` fragments."""
  positions = []
  for t in range(count):
    row = []
    for j in range(size // 2):
      frequency = 10000 ** (-2 * j / size)
      row += [math.sin(t * frequency), math.cos(t * frequency)]
    positions.append(row)
  forward, backward = gru(positions, params['forward']), gru(positions[::-1], params['backward'])[::-1]
  scores = []
  for one, other in zip(forward, backward, strict=True):
    scores.append(dot([(a + b) / 2 for a, b in zip(one, other, strict=True)], params['score']['kernel'][:, 0]))
  powers = [math.exp((score - max(scores)) / temperature) for score in scores]
  return [power / sum(powers) for power in powers]


def weighted_by_rank(fragments, mask, weights):
  result = np.zeros((len(fragments), fragments.shape[2]))
  for b in range(len(fragments)):
    for d in range(fragments.shape[2]):
      falling = sorted((float(x) for x in fragments[b, mask[b], d]), reverse=True)
      result[b, d] = sum(weight * x for weight, x in zip(weights[b], falling, strict=False))
  return result
