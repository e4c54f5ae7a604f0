"""Tokens to encoded texts: a language model, a linear layer where there is one, and what makes vectors of words."""

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Int

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragment_pooling import ZeroGain
from hrem_jax.models.parts import join_parts, scan_parts, split_parts
from hrem_jax.models.start_values import Linear
from hrem_jax.models.text_tower import TextFeatures
from hrem_jax.ops.packing import Packing


class TextEncoder(nn.Module):
  """Words to fragments, then what `pooling` makes of them."""

  language_model: nn.Module  # `Bert`, `BiGru` or `WordTower`
  pooling: nn.Module  # as `fragment_pooling.FragmentPooling`
  linear: Linear | None = None  # to the embedding size; None: the states of the language model are the fragments
  num_parts: int = 1  # that a batch is encoded in while training, one after the other
  residual: ZeroGain | None = None  # on the embeddings of a `WordTower`

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
    fragments = states if self.linear is None else self.linear(states)
    encoded = self.pooling(fragments, mask, packing=packing, train=train)
    return encoded if self.residual is None else self.residual(encoded, own)
