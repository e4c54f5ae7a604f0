"""What a method sees of a data set at once.

Shapes stand in comments: `b` instances, `r` regions of `f` numbers, `w` words. True in a mask means real.
"""

import flax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hrem_jax.ops.packing import Packing


@flax.struct.dataclass
class ImageInputs:
  """Images as their encoder takes them."""

  regions: Array  # [b, r, f] in the file's type: the encoder casts
  mask: Array  # [b, r]
  extras: dict[str, Array] = flax.struct.field(default_factory=dict)  # [b, ...] each: what a method `wants` beside them


@flax.struct.dataclass
class TextInputs:
  """Texts as their encoder takes them. With `packing` a row of `tokens` and `mask` holds several of them."""

  tokens: Array  # [b, w], packed [p, l]
  mask: Array  # as `tokens`
  packing: Packing | None = None
  extras: dict[str, Array] = flax.struct.field(default_factory=dict)  # [b, ...] each


@flax.struct.dataclass
class Batch:
  """Caption-image pairs; True in a mask means real. Without `packing` every caption has a row of its own: `p = b`."""

  regions: Float[Array | np.ndarray, 'b r f']  # in the file's type: the encoder casts
  region_mask: Bool[Array | np.ndarray, 'b r']
  tokens: Int[Array | np.ndarray, 'p l']
  word_mask: Bool[Array | np.ndarray, 'p l']
  image_ids: Int[Array | np.ndarray, ' b']  # equal where captions belong to the same image
  packing: Packing | None = None
  embeddings: Float[Array | np.ndarray, 'b e'] | None = None  # the image encoder's own, if a model begins with them
