"""Pixels in the place of features: for a vision tower that is trained with the rest of the model."""

import dataclasses

from hrem_jax.data.preprocessing import TowerPreprocessing
from hrem_jax.errors import UserError
from hrem_jax.extraction.picture_encoders import PictureEncoder, preprocessing_sha256
from hrem_jax.models.efficientnet import Patches

ENCODER = 'pixels'  # of the provenance


def pixel_encoder(encoder: PictureEncoder) -> PictureEncoder:
  """What stores a picture as the patches that `encoder`, a tower, cuts it into: values from 0 to 255, not normalised.

  Resized and cropped they are as the tower wants them. Nothing depends on its weights, so they are not in the
  provenance.

  Raises:
    UserError: The encoder is no vision tower.
  """
  if not isinstance(encoder.preprocessing, TowerPreprocessing):
    raise UserError(f'--pixels is for the folder of a vision tower, --encoder {encoder.name} is none')
  preprocessing = dataclasses.replace(encoder.preprocessing, scale=1.0, mean=(0.0,) * 3, deviation=(1.0,) * 3)
  settings, size = dataclasses.asdict(preprocessing), preprocessing.patch_size**2 * 3
  return PictureEncoder(
    name=f'{encoder.name} (pixels)',
    module=Patches(rows=encoder.grid[0]),
    variables={},
    preprocessing=preprocessing,
    grid=encoder.grid,
    feature_size=size,
    provenance=dict(
      encoder=ENCODER,
      feature_size=size,
      preprocessing=settings,
      preprocessing_sha256=preprocessing_sha256(preprocessing),
    ),
  )
