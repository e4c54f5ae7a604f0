"""Pictures through the frozen encoder that the features of an index are of, as `extract` does it, one at a time."""

import json
import pathlib

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.data.provenance import differences
from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import to_rgb
from hrem_jax.extraction.encoding import encode_pixels
from hrem_jax.extraction.picture_encoders import ENCODERS, open_encoder
from hrem_jax.extraction.pixels import ENCODER as PIXELS
from hrem_jax.extraction.pixels import pixel_encoder


class PictureQueries:
  """Opens the encoder that a provenance names.

  Args:
    provenance: Of the features: `encoder` and `features`; None where nothing is known of them.
    folder: Of the encoder, if it is one that is read from a folder.

  Raises:
    UserError: The encoder is not known, not there, or another one now.
  """

  def __init__(self, provenance: dict | None, folder: pathlib.Path | None):
    if not provenance or 'encoder' not in provenance:
      raise UserError(
        'pictures cannot be looked for in this index: its data set has no provenance.json that says which encoder made '
        'the features (`extract` writes it)'
      )
    name = provenance['encoder']['encoder']
    if name not in ENCODERS and folder is None:
      raise UserError(
        f'pictures cannot be looked for in this index: it does not know the folder of the encoder, {name}; '
        '`encode` with --encoder FOLDER says it'
      )
    encoder = open_encoder(name if name in ENCODERS else str(folder))
    encoder = pixel_encoder(encoder) if name == PIXELS else encoder
    changed = differences(provenance['encoder'], json.loads(json.dumps(encoder.provenance)))
    if changed:
      raise UserError(
        f'encoder {encoder.name}: not the one that made the features of this index ({"; ".join(changed[:3])})'
      )
    pooled = tuple(provenance['features']['regions'])
    self._preprocessing, self._variables = encoder.preprocessing, jax.device_put(encoder.variables)
    self._encode = jax.jit(lambda variables, pixels: encode_pixels(encoder, variables, pixels, pooled))

  def __call__(self, picture: Image.Image) -> tuple[Float[np.ndarray, 'r f'], Float[np.ndarray, ' e'] | None]:
    """Its regions, as they would stand on the disk, and the encoder's own embedding if there is one."""
    pixels = np.asarray(self._preprocessing(to_rgb(picture)), np.float32)
    regions, embedding = self._encode(self._variables, pixels[None])
    regions = np.asarray(regions)[0].astype(np.float16).astype(np.float32)
    return regions, None if embedding is None else np.asarray(embedding)[0]
