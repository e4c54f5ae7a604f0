"""A grid of learnt positions for another number of cells."""

import numpy as np
from jaxtyping import Float


def bicubic_weights(num_in: int, num_out: int, *, smooth: bool) -> Float[np.ndarray, 'num_out num_in']:
  """The matrix that resamples one side of a grid by cubic convolution, cells' centres being half a cell from the edge.

  It is what PyTorch's `interpolate(mode='bicubic', align_corners=False)` does.

  Args:
    num_in, num_out: Cells before and after.
    smooth: `antialias=True`: the kernel is wider where cells become fewer, and stops at the edge. Else the cells at the
      edge are repeated beyond it.
  """
  scale = num_in / num_out
  centre = (np.arange(num_out)[:, None] + 0.5) * scale - 0.5
  if smooth:
    distance = np.abs(np.arange(num_in) - centre) / max(scale, 1)
    weights = _cubic(distance, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)
  neighbours = np.floor(centre).astype(int) + np.arange(-1, 3)  # [num_out, 4]
  weights = np.zeros((num_out, num_in))
  np.add.at(
    weights,
    (np.arange(num_out)[:, None], np.clip(neighbours, 0, num_in - 1)),
    _cubic(np.abs(neighbours - centre), -0.75),
  )
  return weights


def resample_grid(table: Float[np.ndarray, 'n d'], num_out: int, *, smooth: bool) -> Float[np.ndarray, 'm d']:
  """A square grid of rows, row first, as one of `num_out` cells a side.

  Raises:
    ValueError: `n` is not a square.
  """
  side = round(len(table) ** 0.5)
  grid = table.reshape(side, side, -1)
  weights = bicubic_weights(side, num_out, smooth=smooth)
  resampled = np.einsum('pr,qc,rcd->pqd', weights, weights, grid)
  return resampled.reshape(num_out * num_out, -1).astype(table.dtype)


def _cubic(distance: Float[np.ndarray, '...'], slope: float) -> Float[np.ndarray, '...']:
  """Keys' kernel of width 4; `slope` is its derivative at distance 1."""
  near = ((slope + 2) * distance - (slope + 3)) * distance**2 + 1
  far = slope * (((distance - 5) * distance + 8) * distance - 4)
  return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
