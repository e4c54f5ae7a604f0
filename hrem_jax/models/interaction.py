"""Relation interaction: instances of a batch look at each other through the association graph (METHOD section 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragment_pooling import POOLED
from hrem_jax.models.transformer import TransformerLayer
from hrem_jax.ops.pooling import l2_normalize
from hrem_jax.ops.relations import Relations, inter_blocks, intra_blocks


class Interaction(nn.Module):
  """What both interactions share: their settings, their layer, their inputs."""

  num_heads: int = 16
  dropout: float = 0.1
  relevance_weight: float = 1.0  # lambda: 1.0 for Flickr30K, 1.5 for MS-COCO
  normalize_inputs: bool = True

  def layer(self, size: int, name: str) -> TransformerLayer:
    return TransformerLayer(
      num_heads=self.num_heads,
      feed_forward_size=size,
      dropout=self.dropout,
      attention_dropout=self.dropout,
      feed_forward_dropout=self.dropout,
      name=name,
    )

  def look(
    self,
    layer: TransformerLayer,
    askers: Float[Array, 'a d'],
    asked: Float[Array, 'c d'],
    relations: Relations,
    *,
    train: bool,
  ) -> Float[Array, 'a d']:
    """`askers` through a layer in which they attend to `asked` along the edges `[a, c]` of `relations`."""
    return layer(
      askers[None],
      context=asked[None],
      mask=relations.connection[None],
      bias=self.relevance_weight * relations.relevance[None],
      train=train,
    )[0]

  def inputs(self, images: Encoded, texts: Encoded) -> tuple[Float[Array, 'i d'], Float[Array, 't d']]:
    return tuple(x.embedding if self.normalize_inputs else x.extras[POOLED] for x in (images, texts))


class Fusion(Interaction):
  """Synchronous interaction: images and texts as one sequence through one Transformer layer."""

  @nn.compact
  def __call__(
    self, images: Encoded, texts: Encoded, relations: Relations, *, train: bool = False
  ) -> tuple[Float[Array, 'i d'], Float[Array, 't d']]:
    """Returns the enhanced embeddings of images and texts, unit norm."""
    v, u = self.inputs(images, texts)
    instances = jnp.concatenate([v, u])  # [n, d], images first
    layer = self.layer(instances.shape[-1], 'layer')
    enhanced = l2_normalize(self.look(layer, instances, instances, relations, train=train))
    return enhanced[: len(v)], enhanced[len(v) :]


class Standalone(Interaction):
  """Asynchronous interaction: each modality asks the other one, then itself, in layers of their own.

  The blocks of the graph act apart: `i2t` where images ask texts, `t2i` where texts ask images (both from the original
  embeddings), then `i2i` and `t2t`. Described in the paper, absent from the authors' program.
  """

  share_weights: bool = False  # one cross-attention and one self-attention layer for both modalities
  blocks: str = 'all'  # 'intra' has no cross-attention, 'inter' no self-attention

  @nn.compact
  def __call__(
    self, images: Encoded, texts: Encoded, relations: Relations, *, train: bool = False
  ) -> tuple[Float[Array, 'i d'], Float[Array, 't d']]:
    """Returns the enhanced embeddings of images and texts, unit norm."""
    v, u = self.inputs(images, texts)

    def layers(stage: str) -> tuple[TransformerLayer, TransformerLayer]:
      if self.share_weights:
        shared = self.layer(v.shape[-1], stage)
        return shared, shared
      return self.layer(v.shape[-1], f'{stage}_images'), self.layer(v.shape[-1], f'{stage}_texts')

    if self.blocks != 'intra':
      (of_images, of_texts), (i2t, t2i) = layers('cross'), inter_blocks(relations, len(v))
      v, u = self.look(of_images, v, u, i2t, train=train), self.look(of_texts, u, v, t2i, train=train)
    if self.blocks != 'inter':
      (of_images, of_texts), (i2i, t2t) = layers('self'), intra_blocks(relations, len(v))
      v, u = self.look(of_images, v, v, i2i, train=train), self.look(of_texts, u, u, t2t, train=train)
    return l2_normalize(v), l2_normalize(u)
