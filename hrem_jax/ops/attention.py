"""Scaled dot-product attention with a mask and a bias (METHOD section 2, last equation)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention_weights(
  query: Float[Array, 'b a h e'],
  key: Float[Array, 'b c h e'],
  *,
  mask: Bool[Array, '#b #a c'] | None = None,
  bias: Float[Array, '#b #a c'] | None = None,
) -> Float[Array, 'b h a c']:
  """`softmax(Q K^T / sqrt(e) + bias, only where mask)` over the keys, in float32.

  Args:
    query, key: `a` askers and `c` asked of `h` heads of size `e`.
    mask: True where the asker may look.
    bias: Added to the logits, the same for every head.

  Returns:
    Weights, exactly 0 where masked. A row with nothing to look at is uniform (finite, meaningless).
  """
  at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)
  logits = jnp.einsum('bahe,bche->bhac', query, key, preferred_element_type=at_least_float32)
  logits = logits / query.shape[-1] ** 0.5
  if bias is not None:
    logits = logits + bias[:, None]
  if mask is not None:
    logits = jnp.where(mask[:, None], logits, jnp.finfo(logits.dtype).min)
  return jax.nn.softmax(logits, axis=-1)
