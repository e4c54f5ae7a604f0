"""Region features to an image embedding (METHOD section 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.encoders import Encoded, FragmentPooling
from hrem_jax.models.parts import join_parts, scan_parts, split_parts
from hrem_jax.models.transformer import dense_init


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
      real, count = mask[..., None], jnp.maximum(jnp.sum(mask), 1)
      mean = jnp.sum(jnp.where(real, rows, 0.0), axis=(0, 1)) / count
      variance = jnp.sum(jnp.where(real, (rows - mean) ** 2, 0.0), axis=(0, 1)) / count
      if not self.is_initializing():
        unbiased = variance * (count / jnp.maximum(count - 1, 1))
        running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
        running_variance.value = self.momentum * running_variance.value + (1 - self.momentum) * unbiased
    scale = self.param('scale', nn.initializers.ones, (size,))
    bias = self.param('bias', nn.initializers.zeros, (size,))
    return ((x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias).astype(x.dtype)


class RegionProjection(nn.Module):
  """`Linear(f -> d) + MLP(f -> d/2 -> BatchNorm -> ReLU -> d)`."""

  embedding_size: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, regions: Float[Array, 'i r f'], mask: Bool[Array, 'i r'], *, train: bool = False
  ) -> Float[Array, 'i r d']:
    def dense(name: str, size: int) -> nn.Dense:
      return nn.Dense(size, kernel_init=dense_init, dtype=self.dtype, name=name)

    hidden = dense('mlp_in', self.embedding_size // 2)(regions)
    hidden = nn.relu(MaskedBatchNorm(name='mlp_norm')(hidden, mask, train=train))
    return dense('linear', self.embedding_size)(regions) + dense('mlp_out', self.embedding_size)(hidden)


class ImageEncoder(nn.Module):
  """Regions to fragments to an embedding."""

  embedding_size: int
  pooling: FragmentPooling
  dtype: jnp.dtype = jnp.float32
  num_parts: int = 1  # that a batch is pooled in while training, one after the other

  @nn.compact
  def __call__(self, regions: Float[Array, 'i r f'], mask: Bool[Array, 'i r'], *, train: bool = False) -> Encoded:
    projection = RegionProjection(self.embedding_size, self.dtype, name='projection')
    # Its BatchNorm sees the whole batch.
    fragments = projection(regions.astype(self.dtype), mask, train=train)
    if not train or self.num_parts == 1:
      return self.pooling(fragments, mask, train=train)
    parts = jax.tree.map(lambda x: split_parts(x, self.num_parts), (fragments, mask))
    encoded = scan_parts(self, lambda module, part: module.pooling(*part, train=train), parts)
    return jax.tree.map(join_parts, encoded)
