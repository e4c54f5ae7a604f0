"""Whether features were made by the encoder that the model goes on from."""

import json

import ml_collections

from hrem_jax.data.precomputed import data_folder
from hrem_jax.data.provenance import PROVENANCE, differences, read_provenance
from hrem_jax.errors import UserError
from hrem_jax.extraction.picture_encoders import open_encoder
from hrem_jax.extraction.pixels import pixel_encoder
from hrem_jax.ports.huggingface import find_folder
from hrem_jax.ports.tensor_files import read_tensors


def check_encoder(config: ml_collections.ConfigDict) -> None:
  """What a data set says of its encoder against the towers of a configuration.

  Pixels must be those that the vision tower looks at. Features under a text tower must be of the weights of its folder,
  or their embeddings have nothing to do with each other. A data set that says nothing is believed.

  Raises:
    UserError: They are others.
  """
  model = config.model
  if config.data.source != 'precomputed' or (model.image == 'regions' and model.start == 'random'):
    return
  folder = data_folder(config.data)
  found = (read_provenance(folder) or {}).get('encoder')
  if not isinstance(found, dict):
    return
  if model.image == 'tower':
    path, how = find_folder(model.image_weights, key='image_weights'), '--pixels '
    expected = json.loads(json.dumps(pixel_encoder(open_encoder(str(path))).provenance))  # tuples are lists there
  else:
    path, how = find_folder(model.weights), ''
    expected = {'weights_sha256': read_tensors(path).sha256()}
  found = {key: found[key] for key in expected if key in found}
  if changed := differences(found, expected):
    raise UserError(
      f'{folder / PROVENANCE}: other features than those of {path} ({changed[0]}); expected is what `extract '
      f'{how}--encoder {path}` makes'
    )
