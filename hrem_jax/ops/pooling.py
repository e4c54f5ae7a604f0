"""From fragments to one vector per instance (METHOD section 1; paper section 3.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NORM_EPSILON = 1e-8


def safe_sqrt(x: Float[Array, '...']) -> Float[Array, '...']:
  """Square root whose gradient at zero is zero instead of NaN; zero, too, for what is below zero by rounding.

  The inner `where` keeps the square root away from zero, the outer one restores the value: only both together are
  finite forward and backward.
  """
  is_positive = x > 0
  return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1.0)), 0.0)


def safe_norm(x: Float[Array, '*b d'], *, axis: int = -1, keepdims: bool = False) -> Float[Array, '...']:
  """Euclidean norm whose gradient at zero is zero instead of NaN."""
  return safe_sqrt(jnp.sum(x * x, axis=axis, keepdims=keepdims))


def l2_normalize(x: Float[Array, '*b d'], *, axis: int = -1) -> Float[Array, '*b d']:
  """`x / (|x| + 1e-8)` along `axis`, in the dtype of `x`; a zero vector stays zero."""
  return x / (safe_norm(x, axis=axis, keepdims=True) + NORM_EPSILON)


def masked_mean(fragments: Float[Array, 'b k d'], mask: Bool[Array, 'b k']) -> Float[Array, 'b d']:
  """Mean over the real fragments of each instance; an instance without any gives zeros."""
  total = jnp.sum(jnp.where(mask[..., None], fragments, 0.0), axis=1)
  return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None].astype(total.dtype)


def largest(x: Float[Array, 'b k d'], mask: Bool[Array, '#b k #d'], *, count: int) -> Float[Array, 'b {count} d']:
  """Each channel's `count` largest real values along `k`, descending; 0, without a gradient, where there are fewer."""
  # `lax.top_k` would gather the whole batch on every device, and sorts where a few passes of a maximum do.
  position = jnp.arange(x.shape[1])[:, None]
  left, found = jnp.broadcast_to(mask, x.shape), []
  for _ in range(min(count, x.shape[1])):
    first = jnp.argmax(jnp.where(left, x, -jnp.inf), axis=1, keepdims=True)  # of equals one is taken
    chosen = left & (position == first)
    found.append(jnp.sum(jnp.where(chosen, x, 0.0), axis=1))
    left = left & ~chosen
  found = jnp.stack(found, axis=1)
  return jnp.pad(found, [(0, 0), (0, count - found.shape[1]), (0, 0)])


def top_k_mean(fragments: Float[Array, 'b k d'], mask: Bool[Array, 'b k'], *, top_k: int = 2) -> Float[Array, 'b d']:
  """Mean of each channel's `top_k` largest values over the real fragments.

  An instance with fewer real fragments than `top_k` is averaged over those that it has; with none it gives zeros.
  """
  total = jnp.sum(largest(fragments, mask[..., None], count=top_k), axis=1)
  return total / jnp.clip(jnp.sum(mask, axis=1), 1, top_k)[:, None].astype(total.dtype)


def pool_fragments(
  fragments: Float[Array, 'b k d'],
  related: Float[Array, 'b k d'],
  mask: Bool[Array, 'b k'],
  *,
  residual_weight: float = 0.8,
) -> Float[Array, 'b d']:
  """One vector per instance, not yet normalised.

  Args:
    fragments: Region or word features before the fragment relation graph.
    related: The same after the graph; pass `fragments` where the graph is switched off.
    mask: True for real fragments.
    residual_weight: Share of the first term (0.8 in the paper).

  Returns:
    `residual_weight * top-2 mean of fragments + (1 - residual_weight) * mean of related`.
  """
  return residual_weight * top_k_mean(fragments, mask) + (1 - residual_weight) * masked_mean(related, mask)


def weighted_by_rank(
  fragments: Float[Array, 'b k d'], mask: Bool[Array, 'b k'], weights: Float[Array, 'b k']
) -> Float[Array, 'b d']:
  """`sum_t weights_t z_t`, `z` being the real fragments of an instance, every channel sorted by itself, falling.

  Args:
    fragments: Any order; padding may stand anywhere.
    mask: True for real fragments.
    weights: Of the ranks; those beyond the number of real fragments do not count.

  Returns:
    The sums; zeros for an instance without fragments.
  """
  falling = -jnp.sort(jnp.where(mask[..., None], -fragments, jnp.inf), axis=1)
  is_real = jnp.arange(fragments.shape[1]) < jnp.sum(mask, axis=1)[:, None]
  return jnp.einsum('bk,bkd->bd', weights, jnp.where(is_real[..., None], falling, 0.0))
