"""Vision Transformers: ViT (Dosovitskiy et al. 2021), CLIP, SigLIP, DINOv2; weights come through `ports.towers`."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.picture_features import PictureFeatures
from hrem_jax.models.pre_norm import FeedForward, LayerSizes, layer_norm, pre_norm_stack
from hrem_jax.models.start_values import BERT_TRANSFORMER, Linear, bert_default, small_normal
from hrem_jax.models.transformer import Attention
from hrem_jax.ops.grids import cut_patches
from hrem_jax.ops.pooling import l2_normalize


class VisionTower(nn.Module):
  """Pixels to patches, and to an embedding where the tower has one that texts can be compared with.

  The patches are the last hidden states of the patch tokens. ViT, DINOv2 and SigLIP apply their final norm to all
  tokens, so it is in them; CLIP applies it to the class token only, so its patches are what the last layer gives.
  """

  layers: LayerSizes
  image_size: int  # pixels of a side
  patch_size: int
  class_token: bool = True
  num_registers: int = 0  # tokens without a place, between the class token and the patches (DINOv2)
  embedding_norm: bool = False  # before the first layer; the patches are embedded without a bias then (CLIP)
  pooling: Literal['none', 'class', 'attention'] = 'none'  # ViT and DINOv2; CLIP; SigLIP
  projection_size: int | None = None  # of CLIP's embedding; None with pooling 'class': no embedding
  dtype: jnp.dtype = jnp.float32  # compute type
  remat: bool = False  # the backward pass computes each layer again instead of remembering its inside

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches; pixels that are left over at the right and at the bottom are not looked at."""
    return self.image_size // self.patch_size, self.image_size // self.patch_size

  @property
  def region_size(self) -> int:
    """Values of a flattened patch."""
    return self.patch_size**2 * 3

  @nn.compact
  def __call__(
    self, pixels: Float[Array, 'b h w 3'] | Float[Array, 'b n p*p*3'], mask: Bool[Array, 'b n'] | None = None
  ) -> PictureFeatures:
    """A picture's patches and embedding.

    Args:
      pixels: Whole pictures of `image_size`, preprocessed; or all `n = rows * columns` patches of them, row first, each
        flattened in the order pixel row, pixel column, channel (`hrem_jax.ops.grids.cut_patches` makes them).
      mask: False for patches that no token looks at, as if they were not there; their own features are meaningless.

    Returns:
      Patches `[b rows columns d]` in the compute type, a float32 embedding.
    """
    rows, columns = self.grid
    regions = cut_patches(jnp.asarray(pixels), self.patch_size) if pixels.ndim == 4 else pixels
    if regions.shape[1:] != (rows * columns, self.region_size):
      raise ValueError(
        f'{pixels.shape} is neither [b {self.image_size} {self.image_size} 3] '
        f'nor [b {rows * columns} {self.region_size}]'
      )
    x = self._embed(regions)
    num_others = x.shape[1] - rows * columns
    seen = None
    if mask is not None:
      seen = jnp.pad(mask, ((0, 0), (num_others, 0)), constant_values=True)[:, None]  # [b, 1, a]
    x = pre_norm_stack(self.layers, x, seen, dtype=self.dtype, remat=self.remat)
    if self.pooling != 'class':
      x = self._final_norm(x)
    patches = x[:, num_others:]
    embedding = self._pool(x[:, 0], patches, None if mask is None else mask[:, None])
    if embedding is not None:
      embedding = l2_normalize(embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32)))
    return PictureFeatures(patches.reshape(len(patches), rows, columns, -1), embedding)

  def _embed(self, regions: Float[Array, 'b n s']) -> Float[Array, 'b a d']:
    """What the first layer gets: the class token and the registers, if there are any, then the patches."""
    batch, num_patches, _ = regions.shape
    size = self.layers.hidden_size
    x = Linear(size, bert_default, not self.embedding_norm, self.dtype, name='patch_embedding')(regions)

    def others(name: str, count: int) -> Array:
      table = self.param(name, small_normal, (count, size)).astype(x.dtype)
      return jnp.broadcast_to(table, (batch, count, size))

    if self.class_token:
      x = jnp.concatenate([others('class_token', 1), x], axis=1)
    x = x + self.param('position_embeddings', small_normal, (x.shape[1], size)).astype(x.dtype)
    if self.num_registers:
      at = x.shape[1] - num_patches
      x = jnp.concatenate([x[:, :at], others('registers', self.num_registers), x[:, at:]], axis=1)
    return layer_norm(self.layers.norm_epsilon, 'embedding_norm', x) if self.embedding_norm else x

  def _final_norm(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    return layer_norm(self.layers.norm_epsilon, 'final_norm', x)

  def _pool(
    self, first: Float[Array, 'b d'], patches: Float[Array, 'b n d'], seen: Bool[Array, 'b 1 n'] | None
  ) -> Float[Array, 'b e'] | None:
    """The embedding, not yet of unit norm."""
    if self.pooling == 'attention':
      return AttentionPooling(self.layers, self.dtype, name='head')(patches, seen)
    if self.pooling == 'class' and self.projection_size:
      projection = Linear(self.projection_size, bert_default, use_bias=False, dtype=self.dtype, name='projection')
      return projection(self._final_norm(first))
    return None


class AttentionPooling(nn.Module):
  """SigLIP's head: one learnt question to all patches, and a feed-forward part after the answer."""

  sizes: LayerSizes
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, patches: Float[Array, 'b n d'], mask: Bool[Array, 'b 1 n'] | None) -> Float[Array, 'b d']:
    question = self.param('question', small_normal, (1, self.sizes.hidden_size)).astype(patches.dtype)
    question = jnp.broadcast_to(question, (len(patches), *question.shape))
    x = Attention(self.sizes.num_heads, 0.0, BERT_TRANSFORMER, self.dtype, name='attention')(
      question, patches, mask=mask
    )
    x = x + FeedForward(self.sizes, self.dtype, name='feed_forward')(
      layer_norm(self.sizes.norm_epsilon, 'feed_forward_norm', x)
    )
    return x[:, 0]
