"""What becomes of the instances of one modality in their encoder."""

import flax
from jaxtyping import Array


@flax.struct.dataclass
class Encoded:
  """Encoded instances. In every array the first axis is the instance: it can be batched, sharded, gathered, stored."""

  embedding: Array | None  # [b, d], or [b, v, d] where an instance has several; unit norm; None: there is none
  fragments: Array | None = None  # [b, k, d]
  mask: Array | None = None  # [b, k], True for real fragments
  extras: dict[str, Array] = flax.struct.field(default_factory=dict)  # [b, ...] each: whatever else a method looks at
