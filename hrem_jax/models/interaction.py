"""Relation interaction: instances of a batch look at each other through the association graph (METHOD section 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrem_jax.models.encoders import Encoded
from hrem_jax.models.transformer import TransformerLayer
from hrem_jax.ops.pooling import l2_normalize
from hrem_jax.ops.relations import Relations


class Fusion(nn.Module):
  """Synchronous interaction: images and texts as one sequence through one Transformer layer."""

  num_heads: int = 16
  dropout: float = 0.1
  relevance_weight: float = 1.0  # lambda: 1.0 for Flickr30K, 1.5 for MS-COCO
  normalize_inputs: bool = True

  @nn.compact
  def __call__(
    self, images: Encoded, texts: Encoded, relations: Relations, *, train: bool = False
  ) -> tuple[Float[Array, 'i d'], Float[Array, 't d']]:
    """Returns the enhanced embeddings of images and texts, unit norm."""
    inputs = [x.embedding if self.normalize_inputs else x.pooled for x in (images, texts)]
    instances = jnp.concatenate(inputs)  # [n, d], images first
    layer = TransformerLayer(
      num_heads=self.num_heads,
      feed_forward_size=instances.shape[-1],
      dropout=self.dropout,
      attention_dropout=self.dropout,
      feed_forward_dropout=self.dropout,
      name='layer',
    )
    enhanced = layer(
      instances[None],
      mask=relations.connection[None],
      bias=self.relevance_weight * relations.relevance[None],
      train=train,
    )[0]
    enhanced = l2_normalize(enhanced)
    return enhanced[: len(inputs[0])], enhanced[len(inputs[0]) :]
