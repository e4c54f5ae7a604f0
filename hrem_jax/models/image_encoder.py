"""Region features to encoded images: the projections that methods choose from, and what surrounds them."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragment_pooling import ZeroGain
from hrem_jax.models.parts import join_parts, scan_parts, split_parts
from hrem_jax.models.start_values import Linear, LinearStart, ones, xavier, zeros
from hrem_jax.models.tower_encoders import PixelTower


class MaskedBatchNorm(nn.Module):
  """Batch normalisation whose statistics are those of the real rows of the global batch (METHOD section 5, D).

  The running variance is the unbiased one, as in the release; the batch is normalised by the biased one.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b k d'], mask: Bool[Array, 'b k'], *, train: bool = False
  ) -> Float[Array, 'b k d']:
    size = x.shape[-1]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (size,))
    running_variance = self.variable('batch_stats', 'variance', jnp.ones, (size,))
    mean, variance = running_mean.value, running_variance.value
    if train:
      rows = x.astype(jnp.promote_types(x.dtype, jnp.float32))
      real, count = mask[..., None], jnp.maximum(jnp.sum(mask), 1).astype(rows.dtype)
      mean = jnp.sum(jnp.where(real, rows, 0.0), axis=(0, 1)) / count
      variance = jnp.sum(jnp.where(real, (rows - mean) ** 2, 0.0), axis=(0, 1)) / count
      if not self.is_initializing():
        unbiased = variance * (count / jnp.maximum(count - 1, 1))
        running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
        running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * unbiased
    scale = self.param('scale', ones, (size,))
    bias = self.param('bias', zeros, (size,))
    return ((x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias).astype(x.dtype)


class RegionProjection(nn.Module):
  """`Linear(f -> d) + MLP(f -> d/2 -> BatchNorm -> ReLU -> d)` (METHOD section 1; Chen et al., CVPR 2021)."""

  embedding_size: int
  dtype: jnp.dtype = jnp.float32
  mlp_start: LinearStart = xavier

  @nn.compact
  def __call__(
    self, regions: Float[Array, 'i r f'], mask: Bool[Array, 'i r'], *, train: bool = False
  ) -> Float[Array, 'i r d']:
    def linear(name: str, size: int, start: LinearStart) -> Linear:
      return Linear(size, start, dtype=self.dtype, name=name)

    hidden = linear('mlp_in', self.embedding_size // 2, self.mlp_start)(regions)
    hidden = nn.relu(MaskedBatchNorm(name='mlp_norm')(hidden, mask, train=train))
    change = linear('mlp_out', self.embedding_size, self.mlp_start)(hidden)
    return linear('linear', self.embedding_size, xavier)(regions) + change


class LinearProjection(nn.Module):
  """One linear layer, Xavier."""

  embedding_size: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, regions: Float[Array, 'i r f'], mask: Bool[Array, 'i r'], *, train: bool = False
  ) -> Float[Array, 'i r d']:
    del mask, train
    return Linear(self.embedding_size, xavier, dtype=self.dtype, name='linear')(regions)


class ImageEncoder(nn.Module):
  """Regions to fragments, then what `pooling` makes of them."""

  projection: nn.Module  # as `RegionProjection`
  pooling: nn.Module  # as `fragment_pooling.FragmentPooling`
  dtype: jnp.dtype = jnp.float32
  num_parts: int = 1  # that a batch is encoded in while training, one after the other
  tower: PixelTower | None = None  # regions are pixels then
  residual: ZeroGain | None = None  # on the embeddings that are given, or that the tower makes

  @property
  def takes_embeddings(self) -> bool:
    """Whether images come with the embeddings that the encoder of their regions makes of them."""
    return self.residual is not None and self.tower is None

  def __call__(
    self,
    regions: Float[Array, 'i r f'],
    mask: Bool[Array, 'i r'],
    embeddings: Float[Array, 'i d'] | None = None,
    *,
    train: bool = False,
  ) -> Encoded:
    """Args: `embeddings` where `takes_embeddings`."""
    if self.tower is not None:
      regions, embeddings = self._in_parts(lambda module, part: module.tower(*part), (regions, mask), train)
    # Its BatchNorm sees the whole batch.
    fragments = self.projection(regions.astype(self.dtype), mask, train=train)
    encoded = self._in_parts(lambda module, part: module.pooling(*part, train=train), (fragments, mask), train)
    return encoded if self.residual is None else self.residual(encoded, embeddings)

  def _in_parts(self, encode: Callable, inputs, train: bool):
    """`encode(self, inputs)`, while training part by part."""
    if not train or self.num_parts == 1:
      return encode(self, inputs)
    parts = jax.tree.map(lambda x: split_parts(x, self.num_parts), inputs)
    return jax.tree.map(join_parts, scan_parts(self, encode, parts))
