"""The two towers of a Hugging Face folder (CLIP, SigLIP), or its vision tower alone (ViT, DINOv2, too)."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from hrem_jax.data.preprocessing import TowerPreprocessing
from hrem_jax.errors import UserError
from hrem_jax.models.text_tower import TextTower
from hrem_jax.models.vision_tower import VisionTower
from hrem_jax.ops.resampling import resample_grid
from hrem_jax.paths import local_path
from hrem_jax.ports import tower_names
from hrem_jax.ports.huggingface import merge_checked
from hrem_jax.ports.picture_processors import read_preprocessing
from hrem_jax.ports.tables import Entry, read_entries
from hrem_jax.ports.tensor_files import FolderTensors, read_tensors
from hrem_jax.ports.tower_sizes import TowerConfig, text_tower, vision_tower
from hrem_jax.ports.tower_tokenizer import TowerTokenizer, read_tower_tokenizer


@dataclasses.dataclass(frozen=True)
class VisionSide:
  """`module.apply(variables, np.stack([preprocessing(picture)]))` gives `PictureFeatures`."""

  module: VisionTower
  variables: dict
  preprocessing: TowerPreprocessing
  model_type: str  # as the folder has it
  tensors: FolderTensors  # where the variables come from

  @property
  def embedding_size(self) -> int | None:
    """None: there is no embedding that texts can be compared with."""
    return self.module.layers.hidden_size if self.module.pooling == 'attention' else self.module.projection_size


@dataclasses.dataclass(frozen=True)
class TextSide:
  """`tokens, mask = tokenize(texts)`; `module.apply(variables, tokens)` gives `TextFeatures`."""

  module: TextTower
  variables: dict
  tokenize: TowerTokenizer


@dataclasses.dataclass(frozen=True)
class Towers:
  """Both sides of a folder, whose embeddings can be compared; `logit_scale` times the cosine is what it was trained on.

  Of a SigLIP `logit_bias` is added to that; a CLIP has none, 0.
  """

  vision: VisionSide
  text: TextSide
  embedding_size: int
  logit_scale: float
  logit_bias: float


def open_towers(folder: str | pathlib.Path) -> Towers:
  """Both towers of a folder of a CLIP or SigLIP.

  Args:
    folder: Has `config.json`, `preprocessor_config.json`, a tokenizer and safetensors, single or sharded.

  Raises:
    UserError: A file is missing, damaged or of another kind, or the folder has no text tower.
  """
  folder = local_path(folder)
  config, tensors = TowerConfig(folder), read_tensors(folder)
  if not config.has_both:
    raise UserError(
      f'{config.path}: model_type is {config.model_type!r}, which has no text tower, expected clip or siglip'
    )
  vision = _vision_side(folder, config, tensors)
  text = _text_side(folder, config, tensors)
  if vision.embedding_size != text.module.projection_size:
    raise UserError(
      f'{config.path}: embeddings of pictures have {vision.embedding_size} numbers, of texts '
      f'{text.module.projection_size}, expected the same'
    )
  entries = [Entry(name, name) for name in ('logit_scale', 'logit_bias') if name == 'logit_scale' or name in tensors]
  logits = read_entries(tensors, entries, source=tensors.source)
  scale, bias = (float(np.ravel(logits.get(name, 0.0))[0]) for name in ('logit_scale', 'logit_bias'))
  return Towers(vision, text, vision.embedding_size, float(np.exp(scale)), bias)


def open_vision(folder: str | pathlib.Path) -> VisionSide:
  """The vision tower of a folder of a ViT, CLIP, SigLIP or DINOv2, whether it holds a text tower or not.

  Args:
    folder: Has `config.json`, `preprocessor_config.json` and safetensors, single or sharded.

  Raises:
    UserError: A file is missing, damaged or of another kind.
  """
  folder = local_path(folder)
  return _vision_side(folder, TowerConfig(folder), read_tensors(folder))


def _vision_side(folder: pathlib.Path, config: TowerConfig, tensors: FolderTensors) -> VisionSide:
  patch_size, trained_size = config.vision.integer('patch_size'), config.vision.integer('image_size')
  preprocessing = read_preprocessing(folder, config.family, patch_size)
  image_size = preprocessing.size[0]
  is_dino = config.family.startswith('dinov2')  # the only one that is used in another size than it was trained in
  if preprocessing.size != (image_size, image_size) or (image_size != trained_size and not is_dino):
    raise UserError(
      f'{folder}: the preprocessing gives {" x ".join(map(str, preprocessing.size))} pixels, '
      f'config.json expects {trained_size} x {trained_size}'
    )
  if image_size < patch_size:
    raise UserError(f'{folder}: {image_size} x {image_size} pixels hold no patch of {patch_size} x {patch_size}')
  module = vision_tower(config, image_size=image_size, has_projection='visual_projection.weight' in tensors)
  entries = _vision_entries(config, module, tensors)
  pixels = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
  return VisionSide(module, _read(module, pixels, entries, tensors), preprocessing, config.model_type, tensors)


def _vision_entries(config: TowerConfig, module: VisionTower, tensors: FolderTensors) -> list[Entry]:
  if config.family == 'clip':
    prefix = _prefix(tensors, 'embeddings.class_embedding')
    return tower_names.clip_vision_entries(prefix, has_projection=module.projection_size is not None)
  if config.family == 'siglip':
    prefix = _prefix(tensors, 'embeddings.patch_embedding.bias')
    return tower_names.siglip_vision_entries(prefix, has_head=module.pooling == 'attention')
  prefix = _prefix(tensors, 'embeddings.cls_token')
  if config.family == 'vit':
    return tower_names.vit_entries(prefix)
  has_registers = config.family == 'dinov2_with_registers'
  return tower_names.dino_entries(
    prefix,
    gated=module.layers.gated,
    has_registers=has_registers,
    # The published programs resample differently.
    read_positions=functools.partial(_positions, num_cells=module.grid[0], smooth=has_registers),
  )


def _text_side(folder: pathlib.Path, config: TowerConfig, tensors: FolderTensors) -> TextSide:
  module = text_tower(config)
  tokenize = read_tower_tokenizer(folder, config.family, module.max_positions)
  if tokenize.largest_token >= module.vocab_size:
    raise UserError(
      f'{folder}: the tokenizer has the token {tokenize.largest_token}, config.json has {module.vocab_size} of them'
    )
  if module.end_token not in (None, tokenize.end):
    raise UserError(
      f'{folder}: the end token is {tokenize.end} of the tokenizer, {module.end_token} in config.json (eos_token_id)'
    )
  prefix = _prefix(tensors, 'embeddings.token_embedding.weight')
  entries = tower_names.clip_text_entries if config.family == 'clip' else tower_names.siglip_text_entries
  tokens = jax.ShapeDtypeStruct((1, module.max_positions), np.int32)
  return TextSide(module, _read(module, tokens, entries(prefix), tensors), tokenize)


def _read(module: nn.Module, inputs: jax.ShapeDtypeStruct, entries: list[Entry], tensors: FolderTensors) -> dict:
  """The variables of a module, all shapes checked."""
  expected = jax.eval_shape(module.init, jax.random.key(0), inputs)
  found = read_entries(tensors, entries, source=tensors.source, num_layers=module.layers.num_layers)
  return merge_checked(dict(expected), {'params': found}, source=tensors.source)


def _prefix(tensors: Mapping[str, np.ndarray], name: str) -> str:
  """What stands before a name; files of a model within another one have something there."""
  return min((each.removesuffix(name) for each in tensors if each.endswith(name)), key=len, default='')


def _positions(table: np.ndarray, num_cells: int, smooth: bool) -> np.ndarray:
  """The class token's position, and those of the patches for a grid of `num_cells` a side."""
  first, patches = table[0, :1], table[0, 1:]
  if len(patches) != num_cells**2:
    patches = resample_grid(patches, num_cells, smooth=smooth)
  return np.concatenate([first, patches])
