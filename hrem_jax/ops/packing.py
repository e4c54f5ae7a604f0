"""Several captions in one row: which words see each other, and the way back to one caption per row.

Captions differ in length; a batch padded to its longest one is half padding. What works word by word, or within a
caption, runs on packed rows; only pooling and the association graph see one caption per row.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped


@flax.struct.dataclass
class Packing:
  """Where the words of `t = g * c` captions lie in `p` rows of width `l`; captions and rows form `g` equal groups.

  A group's captions lie in that group's rows only: a device that has whole groups unpacks without asking another one.
  """

  # Without checked shapes: JAX rebuilds arguments of compiled functions with shardings and the like as leaves.
  captions: Any  # int [p, l]: the caption of each word, counted within its group; -1: padding
  positions: Any  # int [p, l]: of each word in its caption
  index: Any  # int [g, c, w]: of each word in the flattened rows of its group; beyond them: padding
  mask: Any  # bool [g, c, w]: True for real words


def attention_mask(mask: Bool[Array | np.ndarray, 'p l'], packing: Packing | None) -> Bool[Array, 'p #l l']:
  """Which words may look at which: the real ones of the row; in packed rows, only those of their own caption.

  Padding of packed rows looks at padding only.
  """
  if packing is None:
    return jnp.asarray(mask)[:, None, :]
  captions = jnp.asarray(packing.captions)
  return captions[:, :, None] == captions[:, None, :]


def caption_starts(packing: Packing, *, reverse: bool = False) -> Bool[Array, 'p l']:
  """True where a reader of the row, from its end if `reverse`, comes to another caption or to padding."""
  captions = jnp.asarray(packing.captions)
  step = -1 if reverse else 1
  return (captions != jnp.roll(captions, step, axis=1)).at[:, -1 if reverse else 0].set(True)


def unpack(rows: Shaped[Array, 'p l d'], packing: Packing) -> Shaped[Array, 't w d']:
  """One caption per row, in the order of the batch; padding is zero and has no gradient."""
  num_groups, num_captions, width = packing.index.shape
  groups = rows.reshape(num_groups, -1, rows.shape[-1])
  # Under vmap the groups are a batch axis of the gather, and it stays split over the devices as the rows are.
  words = jax.vmap(lambda group, index: group.at[index].get(mode='fill', fill_value=0))(groups, packing.index)
  return words.reshape(num_groups * num_captions, width, -1)
