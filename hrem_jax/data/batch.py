"""What a method sees of a data set at once.

Shapes stand in comments: `b` instances, `r` regions of `f` numbers, `w` words. True in a mask means real.
"""

import flax
from jaxtyping import Array

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
  """Pairs: row `j` of the images belongs to row `j` of the texts."""

  images: ImageInputs
  texts: TextInputs
  image_ids: Array  # [b]; equal where captions belong to the same image
