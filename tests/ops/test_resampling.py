"""Resampling of a grid of positions (tests/ports/test_towers.py has DINOv2's published numbers, both kinds)."""

import numpy as np
import pytest

from hrem_jax.ops.resampling import bicubic_weights, resample_grid


@pytest.mark.parametrize('smooth', [False, True])
@pytest.mark.parametrize(('num_in', 'num_out'), [(37, 16), (5, 11), (7, 7), (11, 2)])
def test_weights_average_and_are_symmetric(num_in, num_out, smooth):
  weights = bicubic_weights(num_in, num_out, smooth=smooth)
  assert weights.shape == (num_out, num_in)
  np.testing.assert_allclose(weights.sum(axis=1), 1)
  np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)
  if num_in == num_out:
    np.testing.assert_allclose(weights, np.eye(num_in), atol=1e-12)


def test_a_slope_stays_a_slope_away_from_the_edges():
  centres = (np.arange(11) + 0.5) * 5 / 11 - 0.5
  np.testing.assert_allclose((bicubic_weights(5, 11, smooth=True) @ np.arange(5))[4:7], centres[4:7], atol=1e-9)


@pytest.mark.parametrize('smooth', [False, True])
@pytest.mark.parametrize(('num_in', 'num_out'), [(37, 16), (5, 11), (11, 2)])
def test_pytorch_does_the_same(num_in, num_out, smooth):
  torch = pytest.importorskip('torch')
  table = np.random.default_rng(0).normal(size=(num_in**2, 3)).astype(np.float32)
  grid = torch.from_numpy(table).reshape(1, num_in, num_in, 3).permute(0, 3, 1, 2)
  theirs = torch.nn.functional.interpolate(
    grid, size=(num_out, num_out), mode='bicubic', align_corners=False, antialias=smooth
  )
  expected = theirs.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
  np.testing.assert_allclose(resample_grid(table, num_out, smooth=smooth), expected, atol=1e-5)
