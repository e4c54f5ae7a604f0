"""Pixels in the place of features: what a vision tower in the model sees is what the encoder would have seen."""

import jax
import numpy as np
import pytest
import small_pictures
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.extraction.picture_encoders import open_encoder
from hrem_jax.extraction.pixels import pixel_encoder
from hrem_jax.methods.registry import default_config
from hrem_jax.models.tower_encoders import pixel_tower
from hrem_jax.ports.pretrained import fill_in_towers


def test_pixels_through_the_tower_are_its_features(golden):
  folder = str(golden / 'towers' / 'clip')
  encoder, picture = open_encoder(folder), small_pictures.random_picture(3)
  raw = pixel_encoder(encoder)
  values = raw.preprocessing(picture)
  assert_array_equal(values, values.round())
  assert values.min() >= 0
  assert 200 < values.max() <= 255
  patches = np.asarray(raw.module.apply({}, values[None]).patches)
  assert patches.shape == (1, *raw.grid, raw.feature_size) == (1, 4, 4, 75)
  config = default_config()
  config.model.update(image='tower', image_weights=folder)
  fill_in_towers(config, None)
  tower = pixel_tower(config.model.image_tower, dtype='float32', remat=False)
  stored = patches.reshape(1, 16, 75).astype(np.float16)  # as in SPLIT_ims.npy
  states, embedding = jax.jit(tower.apply)(encoder.variables, stored, np.ones((1, 16), bool))
  expected = jax.jit(encoder.module.apply)(encoder.variables, encoder.preprocessing(picture)[None])
  assert_allclose(states.reshape(1, 4, 4, -1), expected.patches, rtol=1e-5, atol=1e-5)  # two programs; values to 19
  assert_allclose(embedding, expected.embedding, atol=1e-6)


def test_nothing_of_the_weights_is_in_the_provenance(golden):
  first, other = (pixel_encoder(open_encoder(str(golden / 'towers' / name))) for name in ('clip', 'clip_first_files'))
  assert first.provenance == other.provenance
  assert first.provenance['encoder'] == 'pixels'
  assert pixel_encoder(open_encoder(str(golden / 'towers' / 'siglip'))).provenance != first.provenance


def test_only_towers_have_such_pixels():
  with pytest.raises(UserError, match='--pixels is for the folder of a vision tower, --encoder patches is none'):
    pixel_encoder(open_encoder('patches'))


def test_patches_cannot_be_pooled(capsys):
  with pytest.raises(SystemExit) as status:
    cli.run(['extract', '--images=.', '--output=.', '--pixels', '--regions=4'])
  assert status.value.code == 2
  assert '--regions: with --pixels every patch of the tower is a region' in capsys.readouterr().err
