"""The Transformer of the vision and text towers: norms stand before attention and feed-forward, not after them."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.start_values import BERT_TRANSFORMER, Linear, bert_default, ones
from hrem_jax.models.transformer import Attention

ACTIVATIONS = {
  'gelu': functools.partial(jax.nn.gelu, approximate=False),
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),  # CLIP's
}


@dataclasses.dataclass(frozen=True)
class LayerSizes:
  """What a stack of layers measures, and what is in a layer."""

  hidden_size: int
  num_layers: int
  num_heads: int
  intermediate_size: int
  activation: str = 'gelu'  # one of ACTIVATIONS
  norm_epsilon: float = 1e-6
  gated: bool = False  # the feed-forward part is SwiGLU, without `activation` (the largest DINOv2)
  layer_scale: bool = False  # what is added is scaled feature by feature (DINOv2)


def layer_norm(epsilon: float, name: str, x: Float[Array, '... d']) -> Float[Array, '... d']:
  """A LayerNorm of the module that calls it: statistics in float32 at least, the result in the type of `x`."""
  norm = nn.LayerNorm(epsilon, dtype=jnp.promote_types(x.dtype, jnp.float32), name=name)
  return norm(x).astype(x.dtype)


class FeedForward(nn.Module):
  """Dense, activation, Dense; or SwiGLU, whose first half of `feed_forward_in` is the gate."""

  sizes: LayerSizes
  dtype: jnp.dtype | None = None  # compute type; None: that of inputs and parameters

  @nn.compact
  def __call__(self, x: Float[Array, 'b a d']) -> Float[Array, 'b a d']:
    def linear(name: str, size: int) -> Linear:
      return Linear(size, bert_default, dtype=self.dtype, name=name)

    size = self.sizes.intermediate_size
    if self.sizes.gated:
      gate, value = jnp.split(linear('feed_forward_in', 2 * size)(x), 2, axis=-1)
      hidden = jax.nn.silu(gate) * value
    else:
      hidden = ACTIVATIONS[self.sizes.activation](linear('feed_forward_in', size)(x))
    return linear('feed_forward_out', x.shape[-1])(hidden)


class PreNormLayer(nn.Module):
  """Add attention to the norm of `x`, then add feed-forward of the norm of that."""

  sizes: LayerSizes
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'b a d'], mask: Bool[Array, '#b #a a'] | None = None) -> Float[Array, 'b a d']:
    sizes = self.sizes

    def scaled(name: str, change: Array) -> Array:
      if not sizes.layer_scale:
        return change
      return change * self.param(name, ones, (sizes.hidden_size,)).astype(change.dtype)

    normed = layer_norm(sizes.norm_epsilon, 'attention_norm', x)
    attention = Attention(sizes.num_heads, 0.0, BERT_TRANSFORMER, self.dtype, name='attention')
    x = x + scaled('attention_scale', attention(normed, normed, mask=mask))
    normed = layer_norm(sizes.norm_epsilon, 'feed_forward_norm', x)
    return x + scaled('feed_forward_scale', FeedForward(sizes, self.dtype, name='feed_forward')(normed))


def pre_norm_stack(
  sizes: LayerSizes,
  x: Float[Array, 'b a d'],
  mask: Bool[Array, '#b #a a'] | None,
  *,
  dtype: jnp.dtype | None = None,
  remat: bool = False,
) -> Float[Array, 'b a d']:
  """All layers, as a part of the module that calls it: parameters `layers/...`, stacked along a leading axis.

  Args:
    sizes: Of the layers.
    x: Embeddings of the tokens.
    mask: True where an asker (second axis) may look.
    dtype: Compute type; None: that of inputs and parameters.
    remat: The backward pass computes each layer again instead of remembering its inside.
  """

  def body(layer, x, mask):
    return layer(x, mask), None

  # A scan compiles one layer instead of `num_layers`: start-up is several times shorter at the same speed.
  scan = nn.scan(
    nn.remat(body, prevent_cse=False) if remat else body,
    variable_axes={'params': 0},
    split_rngs={'params': True},
    in_axes=nn.broadcast,
    length=sizes.num_layers,
  )
  return scan(PreNormLayer(sizes, dtype, name='layers'), x, mask)[0]
