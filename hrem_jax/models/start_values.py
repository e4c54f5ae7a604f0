"""Start values of weights and biases, and the linear layer that takes them (METHOD section 5).

A start value of a linear layer is a function of its number of inputs: PyTorch's biases, too, begin with a spread that
depends on it. How fast a model learns depends on these values as much as on its learning rate.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Initializer = nn.initializers.Initializer
LinearStart = Callable[[int], tuple[Initializer, Initializer]]  # number of inputs -> those of weights and of biases

zeros, ones = nn.initializers.zeros, nn.initializers.ones


def uniform(bound: float) -> Initializer:
  """U(-bound, bound)."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def xavier(inputs: int) -> tuple[Initializer, Initializer]:
  """U(+-sqrt(6 / (inputs + outputs))), biases 0."""
  del inputs  # the initializer reads it off the shape
  return nn.initializers.xavier_uniform(), zeros


def xavier_of_three(inputs: int) -> tuple[Initializer, Initializer]:
  """Xavier of three layers written as one, U(+-sqrt(6 / (inputs + 3 outputs))), biases 0: query, key and value."""
  del inputs
  return lambda key, shape, dtype=jnp.float32: uniform((6 / (shape[0] + 3 * shape[1])) ** 0.5)(key, shape, dtype), zeros


def torch_default(inputs: int) -> tuple[Initializer, Initializer]:
  """U(+-1/sqrt(inputs)), weights and biases."""
  return uniform(inputs**-0.5), uniform(inputs**-0.5)


def torch_weights(inputs: int) -> tuple[Initializer, Initializer]:
  """U(+-1/sqrt(inputs)), biases 0."""
  return uniform(inputs**-0.5), zeros


small_normal = nn.initializers.normal(0.02)  # N(0, 0.02): tables of BERT and of towers


def bert_default(inputs: int) -> tuple[Initializer, Initializer]:
  """N(0, 0.02), biases 0: language models and towers without pretrained weights."""
  del inputs
  return small_normal, zeros


class TransformerStart(NamedTuple):
  """Start values of a Transformer layer."""

  query_key_value: LinearStart
  attention_output: LinearStart
  feed_forward: LinearStart


TORCH_TRANSFORMER = TransformerStart(xavier_of_three, torch_weights, torch_default)
BERT_TRANSFORMER = TransformerStart(bert_default, bert_default, bert_default)


class Linear(nn.Module):
  """`nn.Dense`, same names and numbers, with a start value that knows how many inputs there are."""

  size: int
  start: LinearStart = torch_default
  use_bias: bool = True
  dtype: jnp.dtype | None = None  # compute type; None: that of inputs and parameters

  @nn.compact
  def __call__(self, x: Float[Array, '*rows f']) -> Float[Array, '*rows d']:
    kernel_init, bias_init = self.start(x.shape[-1])
    dense = nn.Dense(self.size, self.use_bias, self.dtype, kernel_init=kernel_init, bias_init=bias_init)
    nn.share_scope(self, dense)
    return dense(x)
