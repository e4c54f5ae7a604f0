"""Pooling of a grid against loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from hrem_jax.ops.grids import grid_windows, pool_boxes, pool_grid


@pytest.mark.parametrize(('grid', 'pooled'), [((6, 4), (3, 2)), ((7, 5), (3, 2)), ((7, 5), (7, 5)), ((5, 11), (1, 4))])
def test_regions_are_means_of_their_windows(grid, pooled):
  patches = np.random.default_rng(0).normal(size=(2, *grid, 3)).astype(np.float32)
  regions = np.asarray(pool_grid(jnp.asarray(patches), pooled))
  assert regions.shape == (2, pooled[0] * pooled[1], 3)
  for p in range(pooled[0]):
    for q in range(pooled[1]):
      rows = slice(int(np.floor(p * grid[0] / pooled[0])), int(np.ceil((p + 1) * grid[0] / pooled[0])))
      columns = slice(int(np.floor(q * grid[1] / pooled[1])), int(np.ceil((q + 1) * grid[1] / pooled[1])))
      expected = patches[:, rows, columns].mean(axis=(1, 2))
      np.testing.assert_allclose(regions[:, p * pooled[1] + q], expected, rtol=1e-5, atol=1e-6)


def test_a_grid_that_is_not_pooled_keeps_every_bit():
  patches = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
  np.testing.assert_array_equal(pool_grid(jnp.asarray(patches), (3, 5)), patches.reshape(2, 15, 7))


def test_boxes_are_around_the_cells_of_their_region():
  # 2 x 4 cells of a picture that is seen from x = 0.2 to 1
  x, y = np.linspace(0.2, 1, 5), np.linspace(0, 1, 3)
  cells = np.array([[x[c], y[r], x[c + 1], y[r + 1]] for r in range(2) for c in range(4)])
  boxes = pool_boxes(cells, (2, 4), (1, 2))
  assert boxes.shape == (2, 4)
  np.testing.assert_allclose(boxes, [[0.2, 0, 0.6, 1], [0.6, 0, 1, 1]], atol=1e-12)


@pytest.mark.parametrize('num_cells', [1, 7, 16])
def test_windows_cover_all_cells(num_cells):
  for num_regions in range(1, num_cells + 1):
    windows = grid_windows(num_cells, num_regions)
    assert len(windows) == num_regions
    assert all(start < end for start, end in windows)
    assert set().union(*(range(start, end) for start, end in windows)) == set(range(num_cells))
    assert max(end - start for start, end in windows) <= -(-num_cells // num_regions) + 1
