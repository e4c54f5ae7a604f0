"""A batch encoded part by part, in the memory of one part: for batches beyond the device's memory.

The losses look at the whole batch, so gradients of parts cannot be added up. Instead only the results of the parts are
kept; the backward pass computes each part again (GradCache: Gao et al. 2021, here as a rematerialised scan). Nothing
is approximated, and it costs one more forward pass.
"""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array


def split_parts(x: Array, count: int, size: int = 1) -> Array:
  """`[count * n * size, ...]` to `[count, n * size, ...]`: runs of `size` rows are dealt out one after the other.

  Each part so has rows of every device, and no row leaves its device.
  """
  parts = x.reshape(-1, count, size, *x.shape[1:]).swapaxes(0, 1)
  return parts.reshape(count, -1, *x.shape[1:])


def join_parts(parts: Array, size: int = 1) -> Array:
  """What `split_parts` split, whatever became of the axes after the first two."""
  count, _, *rest = parts.shape
  return parts.reshape(count, -1, size, *rest).swapaxes(0, 1).reshape(-1, *rest)


def scan_parts(module: nn.Module, encode: Callable, parts):
  """`encode(module, part)` for each part: `parts` and the result are trees of arrays with an axis of parts in front.

  Every part has dropout of its own. `encode` must not change variables.
  """
  body = nn.remat(lambda module, carry, part: (carry, encode(module, part)), prevent_cse=False)
  scan = nn.scan(
    body,
    variable_broadcast=['params', 'batch_stats'],
    split_rngs={'params': False, 'dropout': True},
  )
  return scan(module, None, parts)[1]
