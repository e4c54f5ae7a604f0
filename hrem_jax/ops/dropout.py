"""Dropout with half the random numbers: drawing them is what dropout costs on a CPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

LEVELS = 2**16  # of a decision: each takes half of a random word of 32 bits


def keep_mask(rng: PRNGKeyArray, shape: tuple[int, ...], keep: int) -> Bool[Array, '...']:
  """True with probability `keep / LEVELS`, independently. Drawn by place: the same however the array is split."""
  *rows, last = shape
  words = jax.random.bits(rng, (*rows, -(-last // 2)), jnp.uint32)
  halves = jax.lax.bitcast_convert_type(words, jnp.uint16)  # [..., last / 2, 2]
  return halves.reshape(*rows, -1)[..., :last] < jnp.uint16(keep)


def dropout(rng: PRNGKeyArray, x: Float[Array, '*shape'], rate: float) -> Float[Array, '*shape']:
  """`x` with each number 0 at probability `rate`, to within 2^-17, and the others scaled so that the mean stays.

  Args:
    rng: Used here alone.
    x: Of one axis or more.
    rate: From 0, which gives `x`, to below 1.
  """
  keep = round((1 - rate) * LEVELS)
  if keep == LEVELS:
    return x
  return jnp.where(keep_mask(rng, x.shape, keep), x * (LEVELS / keep), 0)
