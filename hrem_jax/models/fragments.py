"""Fragments as they are, for methods that look at pairs of them and make no embedding of an instance."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.models.encoded import Encoded
from hrem_jax.ops.packing import Packing, unpack
from hrem_jax.ops.pooling import l2_normalize


class UnitFragments(nn.Module):
  """Each fragment divided by its length, in float32; 0 at padding. In the place of a pooling."""

  def __call__(
    self,
    fragments: Float[Array, 'b k d'],
    mask: Bool[Array, 'b k'],
    *,
    packing: Packing | None = None,
    train: bool = False,
  ) -> Encoded:
    """With `packing` rows hold several instances; the result has one each."""
    del train
    if packing is not None:
      fragments = unpack(fragments, packing)
      mask = packing.mask.reshape(fragments.shape[:2])
    mask = jnp.asarray(mask)
    fragments = fragments.astype(jnp.promote_types(fragments.dtype, jnp.float32))
    return Encoded(None, jnp.where(mask[..., None], l2_normalize(fragments), 0.0), mask)
