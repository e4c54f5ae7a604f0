"""The Generalized Pooling Operator (Chen et al., CVPR 2021, section 4): learnt weights of sorted fragments."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hrem_jax.models.bigru import Gru
from hrem_jax.models.encoded import Encoded
from hrem_jax.models.start_values import Linear, torch_default
from hrem_jax.ops.packing import Packing, unpack
from hrem_jax.ops.pooling import l2_normalize, weighted_by_rank


def sinusoids(count: int, size: int) -> Float[np.ndarray, '{count} {size}']:
  """Positions from 0 as vectors: at `2j` and `2j + 1` sine and cosine of `position / 10000^(2j / size)`."""
  angles = np.arange(count)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
  return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(count, size)


class PoolingByRank(nn.Module):
  """One vector per instance: its fragments are sorted, channel by channel, and ranks are weighted.

  What a rank weighs depends on the number of fragments alone: a GRU reads the ranks in both directions.
  """

  position_size: int = 32
  hidden_size: int = 32
  temperature: float = 0.1  # of the softmax over the ranks
  dtype: jnp.dtype = jnp.float32  # of the fragments; nothing here is less precise than float32

  def setup(self):
    dtype = jnp.promote_types(self.dtype, jnp.float32)
    self.forward = Gru(self.hidden_size, dtype=dtype)
    self.backward = Gru(self.hidden_size, reverse=True, dtype=dtype)
    self.score = Linear(1, torch_default, use_bias=False, dtype=dtype)

  def weights_by_count(self, most: int) -> Float[Array, '{most} {most}']:
    """theta: row `n - 1` holds the weights of the ranks of `n` fragments, 0 beyond; it adds up to 1."""
    is_rank = jnp.tri(most, dtype=bool)
    positions = jnp.asarray(sinusoids(most, self.position_size), jnp.promote_types(self.dtype, jnp.float32))
    positions = jnp.broadcast_to(positions, (most, *positions.shape))
    states = (self.forward(positions, is_rank) + self.backward(positions, is_rank)) / 2
    return jax.nn.softmax(self.score(states)[..., 0] / self.temperature, axis=1, where=is_rank)

  def __call__(
    self,
    fragments: Float[Array, 'b k d'],
    mask: Bool[Array, 'b k'],
    *,
    packing: Packing | None = None,
    train: bool = False,
  ) -> Encoded:
    """The embedding and the fragments, from packed rows (`[p, l, d]`) one instance per row."""
    del train  # nothing here differs in training
    if packing is not None:
      fragments = unpack(fragments, packing)
      mask = packing.mask.reshape(fragments.shape[:2])
    # float32 from here on: pooling, norms and everything between instances.
    fragments, mask = fragments.astype(jnp.promote_types(fragments.dtype, jnp.float32)), jnp.asarray(mask)
    # Without fragments the weights are those of one, which does not count.
    weights = self.weights_by_count(mask.shape[1])[jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)]
    return Encoded(l2_normalize(weighted_by_rank(fragments, mask, weights)), fragments, mask)
