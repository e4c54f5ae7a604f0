"""The towers of a Hugging Face folder as modules without weights: `config.json` read with the published defaults."""

import pathlib
from typing import Any

from hrem_jax.errors import UserError, shown
from hrem_jax.files import read_json_object
from hrem_jax.models.pre_norm import LayerSizes
from hrem_jax.models.text_tower import TextTower
from hrem_jax.models.vision_tower import VisionTower
from hrem_jax.ports.json_settings import MOST, Settings

MOST_LAYERS, MOST_POSITIONS = 512, 2**15

ACTIVATION_OF = {
  'gelu': 'gelu',
  'quick_gelu': 'quick_gelu',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'gelu_new': 'gelu_tanh',
}
# The sizes of a base model, which a file leaves out where they are its own.
_BASE = {
  'hidden_size': 768,
  'num_hidden_layers': 12,
  'num_attention_heads': 12,
  'intermediate_size': 3072,
  'hidden_act': 'gelu',
  'image_size': 224,
  'patch_size': 16,
}
_CLIP = {'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5, 'projection_dim': 512}
_SIGLIP = {'hidden_act': 'gelu_pytorch_tanh', 'layer_norm_eps': 1e-6}
_DINO = _BASE | {'layer_norm_eps': 1e-6, 'patch_size': 14, 'mlp_ratio': 4, 'use_swiglu_ffn': False}
VISION_DEFAULTS = {
  'vit': _BASE | {'layer_norm_eps': 1e-12},
  'clip': _BASE | _CLIP | {'patch_size': 32},
  'siglip': _BASE | _SIGLIP | {'vision_use_head': True},
  'dinov2': _DINO,
  'dinov2_with_registers': _DINO | {'num_register_tokens': 4},
}
_TEXT = _BASE | {'hidden_size': 512, 'intermediate_size': 2048, 'num_attention_heads': 8, 'vocab_size': 49408}
TEXT_DEFAULTS = {
  'clip': _TEXT | _CLIP | {'max_position_embeddings': 77, 'eos_token_id': 49407},
  'siglip': _BASE | _SIGLIP | {'vocab_size': 32000, 'max_position_embeddings': 64},
}
# model_type of a folder -> the family, and whether it holds both towers.
FAMILIES = {
  'vit': ('vit', False),
  'clip': ('clip', True),
  'clip_vision_model': ('clip', False),
  'siglip': ('siglip', True),
  'siglip_vision_model': ('siglip', False),
  'dinov2': ('dinov2', False),
  'dinov2_with_registers': ('dinov2_with_registers', False),
}
LEGACY_END_TOKEN = 2  # in CLIP's first files, where it means: the largest number of a text


class TowerConfig:
  """What `config.json` says.

  Attributes:
    path: The file.
    model_type: As the file has it.
    family: 'vit', 'clip', 'siglip', 'dinov2' or 'dinov2_with_registers'.
    has_both: Whether there is a text tower, too.
    vision, text: Their sections, defaults filled in; `text` is None where there is none.

  Raises:
    UserError: There is no such file, or it describes something that is not known here.
  """

  def __init__(self, folder: pathlib.Path):
    self.path = folder / 'config.json'
    if not self.path.is_file():
      raise UserError(f'{self.path}: no such file; expected is a Hugging Face folder of one of {", ".join(FAMILIES)}')
    self._content = read_json_object(self.path)
    self.model_type = self._content.get('model_type')
    if self.model_type == 'siglip2':
      raise UserError(
        f"{self.path}: model_type is 'siglip2', pictures of any shape (NaFlex), expected a SigLIP 2 of a fixed "
        "resolution, whose model_type is 'siglip', such as google/siglip2-base-patch16-256"
      )
    if not isinstance(self.model_type, str) or self.model_type not in FAMILIES:
      raise UserError(f'{self.path}: model_type is {shown(self.model_type)}, expected one of {", ".join(FAMILIES)}')
    self.family, self.has_both = FAMILIES[self.model_type]
    self.vision = self._section('vision_config' if self.has_both else '', VISION_DEFAULTS[self.family])
    self.text = self._section('text_config', TEXT_DEFAULTS[self.family]) if self.has_both else None

  def _section(self, name: str, defaults: dict[str, Any]) -> Settings:
    content = self._content.get(name) if name else self._content
    older = self._content.get(f'{name}_dict') if name else None
    if older is not None:  # files from the first years have both, and the published program takes this one
      content = older
    if content is not None and not isinstance(content, dict):
      raise UserError(f'{self.path}: {name} is {type(content).__name__}, expected an object')
    return Settings(self.path, content or {}, defaults, section=name)

  @property
  def projection_size(self) -> int:
    """Of CLIP's embeddings."""
    if not self.has_both:
      return self.vision.integer('projection_dim')
    return Settings(self.path, self._content, {'projection_dim': 512}).integer('projection_dim')


def vision_tower(config: TowerConfig, *, image_size: int, has_projection: bool) -> VisionTower:
  """The vision tower of a configuration.

  Args:
    config: Of the folder.
    image_size: Pixels of a side.
    has_projection: Of a CLIP, whether its weights have one.

  Raises:
    UserError: A value is missing or wrong.
  """
  settings, family = config.vision, config.family
  settings.require('num_channels', 3)
  shared = {
    'layers': _layer_sizes(settings, family),
    'image_size': image_size,
    'patch_size': settings.integer('patch_size'),
  }
  if family == 'clip':
    size = config.projection_size if has_projection else None
    return VisionTower(**shared, embedding_norm=True, pooling='class', projection_size=size)
  if family == 'siglip':
    pooling = 'attention' if settings.flag('vision_use_head') else 'none'
    return VisionTower(**shared, class_token=False, pooling=pooling)
  settings.require('qkv_bias', True)
  num_registers = settings.integer('num_register_tokens') if family == 'dinov2_with_registers' else 0
  return VisionTower(**shared, num_registers=num_registers)


def text_tower(config: TowerConfig) -> TextTower:
  """The text tower of a configuration that has both.

  Raises:
    UserError: A value is missing or wrong.
  """
  settings, is_clip = config.text, config.family == 'clip'
  end_token = settings.integer('eos_token_id') if is_clip else None
  projection = config.projection_size if is_clip else settings.get('projection_size') or settings.integer('hidden_size')
  if type(projection) is not int or not 1 <= projection <= MOST:
    raise settings.wrong('projection_size', f'a positive integer up to {MOST:,}')
  return TextTower(
    layers=_layer_sizes(settings, config.family),
    vocab_size=settings.integer('vocab_size'),
    max_positions=settings.integer('max_position_embeddings', most=MOST_POSITIONS),
    projection_size=projection,
    causal=is_clip,
    end_token=None if end_token == LEGACY_END_TOKEN else end_token,
  )


def _layer_sizes(settings: Settings, family: str) -> LayerSizes:
  is_dino = family.startswith('dinov2')
  hidden_size, num_heads = settings.integer('hidden_size'), settings.integer('num_attention_heads')
  if hidden_size % num_heads:
    raise settings.wrong('hidden_size', f'a multiple of the {num_heads} heads')
  gated = is_dino and settings.flag('use_swiglu_ffn')
  if is_dino:
    intermediate_size = int(hidden_size * settings.number('mlp_ratio'))
    if not 1 <= intermediate_size <= MOST:
      raise settings.wrong('mlp_ratio', f'one with which a layer has up to {MOST:,} numbers')
  else:
    intermediate_size = settings.integer('intermediate_size')
  if gated:  # two thirds, rounded up to a multiple of 8
    intermediate_size = -(-int(intermediate_size * 2 / 3) // 8) * 8
  return LayerSizes(
    hidden_size=hidden_size,
    num_layers=settings.integer('num_hidden_layers', most=MOST_LAYERS),
    num_heads=num_heads,
    intermediate_size=intermediate_size,
    activation=settings.choice('hidden_act', ACTIVATION_OF),
    norm_epsilon=settings.number('layer_norm_eps'),
    gated=gated,
    layer_scale=is_dino,
  )
