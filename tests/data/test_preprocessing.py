"""Where the cells of a grid lie in the picture (tests/ports/test_towers.py has the published pixels)."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from hrem_jax.data.preprocessing import TowerPreprocessing

CROPPED = TowerPreprocessing(
  resize=48, crop=(44, 44), patch_size=10, resample='BOX', scale=1 / 255, mean=(0.0,) * 3, deviation=(1.0,) * 3
)
SQUASHED = dataclasses.replace(CROPPED, resize=(44, 44), crop=None)
GRID = (4, 4)  # 4 of the 44 pixels are left over


@pytest.mark.parametrize('preprocessing', [CROPPED, SQUASHED])
@pytest.mark.parametrize('size', [(960, 480), (480, 720), (480, 480)])
def test_a_cell_shows_what_is_in_its_box(preprocessing, size):
  """A picture that is white in one cell's box only: the pixels of that patch are white, and no others."""
  boxes = preprocessing.grid_boxes(size, GRID)
  assert boxes.shape == (16, 4)
  assert (boxes >= 0).all()
  assert (boxes <= 1).all()
  for cell in (0, 6, 15):
    picture = Image.new('RGB', size)
    x0, y0, x1, y1 = np.round(boxes[cell] * [*size, *size]).astype(int).tolist()
    picture.paste((255, 255, 255), (x0, y0, x1, y1))
    pixels = preprocessing(picture)
    assert pixels.shape == (44, 44, 3)
    assert pixels.dtype == np.float32
    row, column = divmod(cell, 4)
    patch = pixels[10 * row : 10 * row + 10, 10 * column : 10 * column + 10]
    assert patch.min() > 0.8
    np.testing.assert_allclose(pixels.sum(), patch.sum(), rtol=0.05)


def test_boxes_by_hand():
  """960 x 480 becomes 96 x 48; of it 44 x 44 from (26, 2) on, of which 40 x 40 are cells."""
  boxes = CROPPED.grid_boxes((960, 480), GRID)
  np.testing.assert_allclose(boxes[0], [26 / 96, 2 / 48, 36 / 96, 12 / 48])
  np.testing.assert_allclose(boxes[7], [56 / 96, 12 / 48, 66 / 96, 22 / 48])
  np.testing.assert_allclose(SQUASHED.grid_boxes((960, 480), GRID)[15], [30 / 44, 30 / 44, 40 / 44, 40 / 44])


@pytest.mark.parametrize('size', [(65_000, 7), (7, 65_000)])
def test_a_picture_of_endless_length_is_not_resized_as_a_whole(size, monkeypatch):
  """Its shorter side resized it would be of 20 million pixels; what is cut out of it is its middle."""
  picture, sizes = Image.new('RGB', size), []
  middle = tuple(side // 2 for side in size)
  picture.paste((255, 255, 255), (middle[0] - 40, middle[1] - 40, middle[0] + 40, middle[1] + 40))
  resize = Image.Image.resize
  monkeypatch.setattr(Image.Image, 'resize', lambda self, new, *rest: sizes.append(new) or resize(self, new, *rest))
  pixels = CROPPED(picture)
  assert pixels.shape == (44, 44, 3)
  assert (pixels == 1).all()
  assert max(sizes[0]) == 48 * 20
