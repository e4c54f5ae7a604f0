"""HREM's pooling: the fragment relation graph, and one vector from both sides of it (METHOD section 1)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.start_values import zeros
from hrem_jax.models.transformer import TransformerLayer
from hrem_jax.ops.packing import Packing, attention_mask, unpack
from hrem_jax.ops.pooling import l2_normalize, pool_fragments

POOLED = 'pooled'  # in `extras`: the embedding before it is brought to length 1


class ZeroGain(nn.Module):
  """`own + gain * ours`, brought to length 1, with a learnt gain that begins at 0.

  So a model begins as what its encoders make of images and texts already, and no step of training is needed to be as
  good as them.
  """

  @nn.compact
  def __call__(self, encoded: Encoded, own: Float[Array, 'b d']) -> Encoded:
    """Args: `own` are the unit-norm embeddings of the pretrained encoder, `encoded` is what is learnt on top."""
    gain = self.param('gain', zeros, ())
    pooled = own.astype(encoded.embedding.dtype) + gain * encoded.embedding
    return encoded.replace(embedding=l2_normalize(pooled), extras={**encoded.extras, POOLED: pooled})


class FragmentPooling(nn.Module):
  """Fragment relation graph (one Transformer layer, no positions), then pooling to one vector."""

  num_heads: int = 16
  dropout: float = 0.1
  residual_weight: float = 0.8
  use_graph: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    fragments: Float[Array, 'b k d'],
    mask: Bool[Array, 'b k'],
    *,
    packing: Packing | None = None,
    train: bool = False,
  ) -> Encoded:
    """The embedding, and the fragments before the graph.

    With `packing` the graph runs on packed rows (`[p, l, d]`), pooling on one instance per row.
    """
    related = fragments
    if self.use_graph:
      layer = TransformerLayer(
        num_heads=self.num_heads,
        feed_forward_size=fragments.shape[-1],
        dropout=self.dropout,
        attention_dropout=self.dropout,
        feed_forward_dropout=self.dropout,
        dtype=self.dtype,
        name='graph',
      )
      related = layer(fragments, mask=attention_mask(mask, packing), train=train)
    if packing is not None:
      fragments, related = (unpack(x, packing) for x in (fragments, related))
      mask = packing.mask.reshape(fragments.shape[:2])
    # float32 from here on: pooling, norms and everything between instances.
    fragments, related = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (fragments, related))
    mask = jnp.asarray(mask)  # NumPy's is welcome
    pooled = pool_fragments(fragments, related, mask, residual_weight=self.residual_weight)
    return Encoded(l2_normalize(pooled), fragments, mask, {POOLED: pooled})
