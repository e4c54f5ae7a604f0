"""A picture encoder with the interface of the real ones that costs next to nothing."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

SIDE, GRID, SIZE = 20, 10, 5  # pixels of a side, cells of a side, features


@flax.struct.dataclass
class Features:
  patches: jax.Array
  embedding: jax.Array | None


class Module(nn.Module):
  """Means of the cells, mixed with a matrix; sensitive to its neighbours in the batch in no way."""

  has_embedding: bool = True

  @nn.compact
  def __call__(self, pixels):
    batch, cell = len(pixels), SIDE // GRID
    means = pixels.reshape(batch, GRID, cell, GRID, cell, 3).mean(axis=(2, 4))
    patches = nn.Dense(SIZE)(means)
    embedding = jnp.tanh(patches.mean(axis=(1, 2))) if self.has_embedding else None
    return Features(patches, embedding)


@dataclasses.dataclass(frozen=True)
class CentreSquare:
  """Crops the middle square."""

  def __call__(self, picture: Image.Image) -> np.ndarray:
    left, top, right, bottom = self._box(picture.size)
    square = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.asarray(square, np.float32) / 255

  def grid_boxes(self, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = np.array(self._box(size)) / [size[0], size[1], size[0], size[1]]
    x, y = np.linspace(left, right, grid[1] + 1), np.linspace(top, bottom, grid[0] + 1)
    return np.array([[x[c], y[r], x[c + 1], y[r + 1]] for r in range(grid[0]) for c in range(grid[1])])

  def _box(self, size):
    width, height = size
    side = min(size)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


@dataclasses.dataclass(frozen=True)
class SmallEncoder:
  name: str
  module: nn.Module
  variables: dict
  preprocessing: CentreSquare
  provenance: dict
  grid: tuple[int, int] = (GRID, GRID)
  feature_size: int = SIZE


def small_encoder(*, seed: int = 0, has_embedding: bool = True) -> SmallEncoder:
  module = Module(has_embedding)
  variables = module.init(jax.random.key(seed), np.zeros((1, SIDE, SIDE, 3), np.float32))
  return SmallEncoder('small', module, variables, CentreSquare(), {'encoder': 'small', 'sizes': [SIZE], 'seed': seed})
