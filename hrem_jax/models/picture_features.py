"""What an encoder of pictures gives."""

import flax
from jaxtyping import Array, Float


@flax.struct.dataclass
class PictureFeatures:
  """What an encoder makes of pictures."""

  patches: Float[Array, 'b rows columns d']  # the grid, row first
  embedding: Float[Array, 'b e'] | None = None  # unit norm; None: the encoder has none that texts can be compared with
