"""The text sides of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023); weights come through `ports.towers`."""

import flax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hrem_jax.models.pre_norm import LayerSizes, layer_norm, pre_norm_stack
from hrem_jax.models.start_values import Linear, bert_default, small_normal
from hrem_jax.ops.packing import Packing, attention_mask, unpack
from hrem_jax.ops.pooling import l2_normalize


@flax.struct.dataclass
class TextFeatures:
  """What a text tower makes of texts."""

  words: Float[Array, 't w d']  # last hidden states after the final norm
  embedding: Float[Array, 't e']  # unit norm, in the space of the vision tower's


class TextTower(nn.Module):
  """Tokens to words and to an embedding that pictures' can be compared with.

  A causal tower (CLIP) pools at the end token, and what comes after it changes nothing. The other kind (SigLIP) pools
  at the last place; its tokens look at each other and at the padding, as in its training: there is no mask, and texts
  are always padded to `max_positions`.
  """

  layers: LayerSizes
  vocab_size: int
  max_positions: int
  projection_size: int
  causal: bool
  end_token: int | None = None  # of a causal tower; None: the largest number in a text is the end (CLIP's first files)
  dtype: jnp.dtype = jnp.float32  # compute type
  remat: bool = False  # the backward pass computes each layer again instead of remembering its inside

  @nn.compact
  def __call__(self, tokens: Int[Array, 't w'], packing: Packing | None = None) -> TextFeatures:
    """A text's words and embedding.

    Args:
      tokens: Of `Towers.tokenize`: start and end included, padded.
      packing: Of a causal tower, whose rows of tokens then hold several texts `[p l]`, and so do the words; embeddings
        are one per text.
    """
    width = tokens.shape[1] if packing is None else packing.index.shape[2]  # of one text
    positions = slice(width) if packing is None else packing.positions
    if width > self.max_positions:
      raise ValueError(f'the tower has {self.max_positions} positions, the batch has {width} tokens')

    def table(name: str, rows: int) -> Array:
      return self.param(name, small_normal, (rows, self.layers.hidden_size))

    x = table('word_embeddings', self.vocab_size)[tokens]
    x = x + table('position_embeddings', self.max_positions)[positions]
    mask = jnp.tril(jnp.ones(2 * tokens.shape[1:], bool))[None] if self.causal else None
    if packing is not None:
      mask = mask & attention_mask(jnp.asarray(packing.captions) >= 0, packing)
    x = pre_norm_stack(self.layers, x.astype(self.dtype), mask, dtype=self.dtype, remat=self.remat)
    words = layer_norm(self.layers.norm_epsilon, 'final_norm', x)
    projection = Linear(self.projection_size, bert_default, not self.causal, self.dtype, name='projection')
    if packing is None:
      texts, places = words, self._pooled_at(tokens)
    else:
      texts, places = unpack(words, packing), jnp.sum(packing.mask, axis=2).ravel() - 1
    pooled = projection(texts[jnp.arange(len(texts)), places])
    return TextFeatures(words, l2_normalize(pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))))

  def _pooled_at(self, tokens: Int[Array, 't w']) -> Int[Array, ' t']:
    """The place of each text whose state stands for the whole."""
    if not self.causal:
      return jnp.full(len(tokens), tokens.shape[1] - 1)
    return jnp.argmax(tokens if self.end_token is None else tokens == self.end_token, axis=1)
