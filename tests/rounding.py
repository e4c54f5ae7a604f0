"""How far arithmetic of a limited precision may be off: a constant times machine epsilon times a condition.

The condition is by how much a result moves, relative to a change of what goes in and of what comes out of each step
on the way: a property of the input, not of a machine. The constant stands for the number of roundings in a row.
"""

import numpy as np

ROUNDINGS = 4


def epsilon(dtype) -> float:
  return float(np.finfo(dtype).eps)


def log_weight_condition(similarity: np.ndarray, dimension: int = 512) -> np.ndarray:
  """Of the logarithm of a negative's weight (METHOD section 4), entry by entry.

  `(2 - m) log D - (m - 3) / 2 log(1 - D^2 / 4)`: two terms of several hundred, of which each is rounded, and a cosine
  of unit vectors, off by some epsilon, by which they change; below the distance 0.5 they no longer do.
  """
  cosine = np.asarray(similarity, np.float64)
  squared = np.maximum(2 - 2 * cosine, 0.25)
  half_angle = np.maximum(1 - squared / 4, 1e-8)
  terms = (dimension - 2) * np.abs(np.log(squared)) / 2 + (dimension - 3) / 2 * np.abs(np.log(half_angle))
  slope = np.abs((dimension - 2) / squared - (dimension - 3) / 4 / half_angle)
  return terms + np.where(squared > 0.25, slope, 0)


def chance_condition(chances: np.ndarray, condition: np.ndarray) -> np.ndarray:
  """Of softmax over the last axis, given that of the logarithms: `dp = p (dx - sum p dx)`."""
  condition = np.where(chances > 0, condition, 0)
  return chances * (1 + condition + np.sum(chances * condition, axis=-1, keepdims=True))


def chance_error(chances: np.ndarray, condition: np.ndarray, dtype) -> np.ndarray:
  """By how much each of `chances` may be off that were computed in `dtype`; they are kept in float32."""
  kept = epsilon(np.float32) * chances + np.finfo(np.float32).tiny
  return ROUNDINGS * (epsilon(dtype) * chance_condition(chances, condition) + kept)
