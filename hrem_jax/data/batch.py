"""What a model sees of a data set at once."""

import flax
import numpy as np
from jaxtyping import Array, Bool, Float, Int


@flax.struct.dataclass
class Batch:
  """One caption-image pair per row; True in a mask means real."""

  regions: Float[Array | np.ndarray, 'b r f']  # in the file's type: the encoder casts
  region_mask: Bool[Array | np.ndarray, 'b r']
  tokens: Int[Array | np.ndarray, 'b w']
  word_mask: Bool[Array | np.ndarray, 'b w']
  image_ids: Int[Array | np.ndarray, ' b']  # equal where captions belong to the same image
