"""The one Transformer layer of the project: BERT's, the fragment graphs' and the interaction's."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.start_values import TORCH_TRANSFORMER, Linear, TransformerStart
from hrem_jax.ops.attention import attention_weights
from hrem_jax.ops.dropout import dropout


class Dropout(nn.Module):
  """`hrem_jax.ops.dropout` with the keys of the collection `dropout`."""

  rate: float

  def __call__(self, x: Float[Array, '*shape'], *, train: bool) -> Float[Array, '*shape']:
    return dropout(self.make_rng('dropout'), x, self.rate) if train and self.rate else x


class Attention(nn.Module):
  """Multi-head attention of `x` to `context`."""

  num_heads: int
  dropout: float = 0.1
  start: TransformerStart = TORCH_TRANSFORMER
  dtype: jnp.dtype | None = None  # compute type; None: that of inputs and parameters

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b a d'],
    context: Float[Array, 'b c d'],
    *,
    mask: Bool[Array, '#b #a c'] | None = None,
    bias: Float[Array, '#b #a c'] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b a d']:
    size = x.shape[-1]

    def heads(name: str, x: Array) -> Array:
      x = Linear(size, self.start.query_key_value, dtype=self.dtype, name=name)(x)
      return x.reshape(*x.shape[:-1], self.num_heads, size // self.num_heads)  # [b, k, h, e]

    query, key, value = heads('query', x), heads('key', context), heads('value', context)
    weights = attention_weights(query, key, mask=mask, bias=bias)
    weights = Dropout(self.dropout)(weights, train=train).astype(value.dtype)
    mixed = jnp.einsum('bhac,bche->bahe', weights, value).reshape(x.shape)  # heads side by side again
    return Linear(size, self.start.attention_output, dtype=self.dtype, name='output')(mixed)


class TransformerLayer(nn.Module):
  """Post-norm encoder layer: attention, add, norm, feed-forward, add, norm.

  The defaults are METHOD section 1's fragment graph; BERT's layers differ in size, activation, epsilon and in having
  no dropout between the two feed-forward products.
  """

  num_heads: int
  feed_forward_size: int
  activation: Callable[[Array], Array] = jax.nn.relu
  dropout: float = 0.1
  attention_dropout: float = 0.1
  feed_forward_dropout: float = 0.1
  norm_epsilon: float = 1e-5
  start: TransformerStart = TORCH_TRANSFORMER
  dtype: jnp.dtype | None = None  # compute type; None: that of inputs and parameters

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b a d'],
    *,
    context: Float[Array, 'b c d'] | None = None,
    mask: Bool[Array, '#b #a c'] | None = None,
    bias: Float[Array, '#b #a c'] | None = None,
    train: bool = False,
  ) -> Float[Array, 'b a d']:
    """Args: `context` is what `x` looks at (itself by default); `mask` and `bias` as in `attention_weights`."""

    def add_and_norm(name: str, x: Array, change: Array) -> Array:
      change = Dropout(self.dropout)(change, train=train)
      # Statistics in float32 whatever the compute type.
      normed = nn.LayerNorm(self.norm_epsilon, dtype=jnp.promote_types(x.dtype, jnp.float32), name=name)(x + change)
      return normed.astype(x.dtype)

    attention = Attention(self.num_heads, self.attention_dropout, self.start, self.dtype, name='attention')
    change = attention(x, x if context is None else context, mask=mask, bias=bias, train=train)
    x = add_and_norm('attention_norm', x, change)

    def linear(name: str, size: int) -> Linear:
      return Linear(size, self.start.feed_forward, dtype=self.dtype, name=name)

    hidden = self.activation(linear('feed_forward_in', self.feed_forward_size)(x))
    hidden = Dropout(self.feed_forward_dropout)(hidden, train=train)
    return add_and_norm('feed_forward_norm', x, linear('feed_forward_out', x.shape[-1])(hidden))
