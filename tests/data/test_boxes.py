"""Boxes are read for the images asked for, and only fractions of a picture are taken."""

import numpy as np
import pytest

from hrem_jax.data.boxes import read_boxes
from hrem_jax.errors import UserError

MASK = np.array([[True, True, False], [True, True, True]])
ROWS = np.array([4, 1])


def some_boxes(num_images: int = 5) -> np.ndarray:
  corners = np.random.default_rng(0).uniform(size=(num_images, 3, 2, 2)).astype(np.float32)
  return np.sort(corners, axis=2).reshape(num_images, 3, 4)


def write(folder, boxes):
  np.save(folder / 'test_boxes.npy', boxes)
  return folder / 'test_boxes.npy'


def test_the_images_asked_for_and_nothing_of_padding(tmp_path):
  boxes = some_boxes()
  boxes[4, 2] = np.nan  # padding
  found = read_boxes(write(tmp_path, boxes), MASK, ROWS, num_images=5)
  assert found.shape == (2, 3, 4)
  np.testing.assert_array_equal(found[0, :2], boxes[4, :2])
  np.testing.assert_array_equal(found[0, 2], 0)
  np.testing.assert_array_equal(found[1], boxes[1])


def test_repeated_images_are_read_once(tmp_path):
  boxes = some_boxes()
  found = read_boxes(write(tmp_path, boxes.repeat(5, axis=0)), np.ones((2, 3), bool), ROWS, num_images=5)
  np.testing.assert_array_equal(found, boxes[ROWS])


def test_no_file_no_boxes(tmp_path):
  assert read_boxes(tmp_path / 'test_boxes.npy', MASK, ROWS, num_images=5) is None


@pytest.mark.parametrize(
  'box', [[0, 0, 56, 56], [-0.1, 0, 1, 1], [0.5, 0, 0.4, 1], [0, 0.5, 1, 0.4], [0, 0, 1, np.nan]], ids=str
)
def test_what_is_no_box_is_named_by_its_row(tmp_path, box):
  boxes = some_boxes()
  boxes[1, 2] = box
  path = write(tmp_path, boxes)
  with pytest.raises(UserError, match=r'test_boxes\.npy: row 1 .*fractions'):
    read_boxes(path, MASK, ROWS, num_images=5)


@pytest.mark.parametrize('boxes', [some_boxes()[:, :2], some_boxes(7), some_boxes().astype(int), some_boxes()[..., :3]])
def test_another_shape_or_type_is_named(tmp_path, boxes):
  with pytest.raises(UserError, match=r'expected floats \(5, 3, 4\)'):
    read_boxes(write(tmp_path, boxes), MASK, ROWS, num_images=5)
