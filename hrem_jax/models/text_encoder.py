"""Tokens to a text embedding (METHOD section 1)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from hrem_jax.models.encoders import Encoded, FragmentPooling
from hrem_jax.models.transformer import dense_init
from hrem_jax.ops.packing import Packing


class TextEncoder(nn.Module):
  """A language model (`Bert` or `BiGru`), a Linear to the embedding size, and the pooling."""

  embedding_size: int
  language_model: nn.Module
  pooling: FragmentPooling
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> Encoded:
    """A row is a caption, or several with `packing` (`[p, l]`); the result has a row per caption either way."""
    states = self.language_model(tokens, mask, packing=packing, train=train)
    words = nn.Dense(self.embedding_size, kernel_init=dense_init, dtype=self.dtype, name='linear')(states)
    return self.pooling(words, mask, packing=packing, train=train)
