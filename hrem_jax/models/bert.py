"""BERT (Devlin et al. 2019) without pooler; weights come through `hrem_jax.ports.huggingface`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hrem_jax.models.start_values import BERT_TRANSFORMER, small_normal
from hrem_jax.models.transformer import Dropout, TransformerLayer
from hrem_jax.ops.packing import Packing, attention_mask


class Bert(nn.Module):
  """Tokens to last hidden states. The parameters of all layers are stacked along a leading axis (`layers/...`)."""

  vocab_size: int
  hidden_size: int
  num_layers: int
  num_heads: int
  intermediate_size: int
  max_positions: int = 512
  dropout: float = 0.1
  norm_epsilon: float = 1e-12
  dtype: jnp.dtype = jnp.float32
  remat: bool = False  # the backward pass computes each layer again instead of remembering its inside

  @nn.compact
  def __call__(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> Float[Array, 't w h']:
    width = tokens.shape[1] if packing is None else packing.index.shape[2]  # of one caption
    positions = slice(width) if packing is None else packing.positions
    if width > self.max_positions:
      raise ValueError(f'BERT has {self.max_positions} positions, the batch has {width} words')

    def table(name: str, rows: int) -> Array:
      return self.param(name, small_normal, (rows, self.hidden_size))

    x = table('word_embeddings', self.vocab_size)[tokens]
    x = x + table('position_embeddings', self.max_positions)[positions]
    x = x + table('token_type_embeddings', 2)[0]  # one sentence: all tokens are of type 0
    x = nn.LayerNorm(self.norm_epsilon, name='embedding_norm')(x).astype(self.dtype)
    x = Dropout(self.dropout)(x, train=train)

    layer = TransformerLayer(
      num_heads=self.num_heads,
      feed_forward_size=self.intermediate_size,
      activation=functools.partial(jax.nn.gelu, approximate=False),
      dropout=self.dropout,
      attention_dropout=self.dropout,
      feed_forward_dropout=0.0,
      norm_epsilon=self.norm_epsilon,
      start=BERT_TRANSFORMER,
      dtype=self.dtype,
      name='layers',
    )

    # A scan compiles one layer instead of `num_layers`: start-up is several times shorter at the same speed.
    def body(layer, x, mask):
      return layer(x, mask=mask, train=train), None

    scan = nn.scan(
      nn.remat(body, prevent_cse=False) if self.remat else body,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      in_axes=nn.broadcast,
      length=self.num_layers,
    )
    x, _ = scan(layer, x, attention_mask(mask, packing))
    return x
