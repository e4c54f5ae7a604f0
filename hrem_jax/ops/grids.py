"""A picture cut into a grid of patches; cells of a grid pooled to fewer regions."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cut_patches(pixels: Float[Array, 'b h w c'], size: int) -> Float[Array, 'b n s']:
  """The squares of a picture, row first, each flattened in the order pixel row, pixel column, channel.

  Args:
    pixels: Pictures of one size.
    size: Pixels of a square's side; what is left over at the right and at the bottom is cut away.
  """
  batch, height, width, channels = pixels.shape
  rows, columns = height // size, width // size
  cut = pixels[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
  return cut.swapaxes(2, 3).reshape(batch, rows * columns, size * size * channels)


def grid_windows(num_cells: int, num_regions: int) -> list[tuple[int, int]]:
  """First cell and end of each region along one side; neighbours share a cell where the numbers do not divide."""
  return [
    (i * num_cells // num_regions, -(-(i + 1) * num_cells // num_regions))  # floor and ceiling
    for i in range(num_regions)
  ]


def pool_grid(patches: Float[Array, 'b rows columns d'], pooled: tuple[int, int]) -> Float[Array, 'b regions d']:
  """Means over the windows of `grid_windows`, row first.

  Args:
    patches: Features of every cell.
    pooled: Rows and columns of the regions, at most those of the cells.
  """
  batch, rows, columns, size = patches.shape
  if pooled != (rows, columns):
    means = jnp.einsum(
      'pr,qc,brcd->bpqd',
      _window_means(rows, pooled[0]),
      _window_means(columns, pooled[1]),
      patches,
      precision='highest',
    )
    return means.reshape(batch, pooled[0] * pooled[1], size)
  return patches.reshape(batch, rows * columns, size)


def pool_boxes(
  boxes: Float[np.ndarray, 'cells 4'], grid: tuple[int, int], pooled: tuple[int, int]
) -> Float[np.ndarray, 'regions 4']:
  """The smallest boxes around the cells of each region of `pool_grid`.

  Args:
    boxes: `x0 y0 x1 y1` of every cell, row first.
    grid: Rows and columns of the cells.
    pooled: Rows and columns of the regions.
  """
  cells = boxes.reshape(*grid, 4)
  windows = [
    cells[top:bottom, left:right].reshape(-1, 4)
    for top, bottom in grid_windows(grid[0], pooled[0])
    for left, right in grid_windows(grid[1], pooled[1])
  ]
  return np.stack([np.concatenate([window[:, :2].min(axis=0), window[:, 2:].max(axis=0)]) for window in windows])


def _window_means(num_cells: int, num_regions: int) -> Float[Array, 'regions cells']:
  """The matrix whose rows average the cells of each window."""
  cell = np.arange(num_cells)
  inside = np.stack([(start <= cell) & (cell < end) for start, end in grid_windows(num_cells, num_regions)])
  return jnp.asarray(inside / inside.sum(axis=1, keepdims=True), jnp.float32)
