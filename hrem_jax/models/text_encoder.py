"""Tokens to a text embedding (METHOD section 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from hrem_jax.models.encoders import Encoded, FragmentPooling, ZeroGain
from hrem_jax.models.parts import join_parts, scan_parts, split_parts
from hrem_jax.models.start_values import Linear, LinearStart, torch_default
from hrem_jax.models.text_tower import TextFeatures
from hrem_jax.ops.packing import Packing


class TextEncoder(nn.Module):
  """A language model (`Bert`, `BiGru` or `WordTower`), a Linear to the embedding size, and the pooling."""

  embedding_size: int
  language_model: nn.Module
  pooling: FragmentPooling
  dtype: jnp.dtype = jnp.float32
  num_parts: int = 1  # that a batch is encoded in while training, one after the other
  residual: ZeroGain | None = None  # on the embeddings of a `WordTower`
  linear_start: LinearStart = torch_default

  def setup(self):
    self.linear = Linear(self.embedding_size, self.linear_start, dtype=self.dtype)

  def __call__(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> Encoded:
    """A row is a caption, or several with `packing` (`[p, l]`); the result has a row per caption either way."""
    if not train or self.num_parts == 1:
      return self._encode(tokens, mask, packing, train)
    num_groups, group_size = (len(tokens), 1) if packing is None else packing.index.shape[:2]
    rows_of_group = len(tokens) // num_groups

    def split(x: Array) -> Array:
      return split_parts(x, self.num_parts, rows_of_group if len(x) == len(tokens) else 1)

    parts = jax.tree.map(split, (tokens, mask, packing))
    encoded = scan_parts(self, lambda module, part: module._encode(*part, train), parts)
    return jax.tree.map(lambda x: join_parts(x, group_size), encoded)

  def _encode(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], packing: Packing | None, train: bool
  ) -> Encoded:
    states = self.language_model(tokens, mask, packing=packing, train=train)
    states, own = (states.words, states.embedding) if isinstance(states, TextFeatures) else (states, None)
    encoded = self.pooling(self.linear(states), mask, packing=packing, train=train)
    return encoded if self.residual is None else self.residual(encoded, own)
