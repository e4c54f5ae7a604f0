"""Pretrained towers inside the model: they take what a batch holds, and are built from a configuration."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hrem_jax.models.pre_norm import LayerSizes
from hrem_jax.models.text_tower import TextFeatures, TextTower
from hrem_jax.models.vision_tower import VisionTower
from hrem_jax.ops.packing import Packing

NONE = -1  # stands in a configuration, where every number has a value, for None
_NOT_SETTINGS = {'layers', 'dtype', 'remat', 'parent', 'name'}


class WordTower(TextTower):
  """A text tower in the place of a language model."""

  pad_token: int = 0
  pads_left: bool = False  # in its own training; in a batch padding stands behind a text

  def __call__(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> TextFeatures:
    """A tower that looks at padding gets as much of it as in its own training, and one text a row."""
    if self.causal:
      return super().__call__(tokens, packing)
    if packing is not None:
      raise ValueError('a text tower that looks at padding takes one text a row')
    width, num_places = tokens.shape[1], self.max_positions
    padding = [(0, 0), (0, num_places - width)]
    tokens = jnp.pad(jnp.where(mask, tokens, self.pad_token), padding, constant_values=self.pad_token)
    first = num_places - jnp.sum(mask, axis=1, keepdims=True) if self.pads_left else jnp.zeros((len(tokens), 1), int)
    there, back = (jnp.arange(num_places) - first) % num_places, (jnp.arange(width) + first) % num_places
    features = super().__call__(jnp.take_along_axis(tokens, there, axis=1))
    return features.replace(words=jnp.take_along_axis(features.words, back[..., None], axis=1))


class PixelTower(VisionTower):
  """A vision tower before the region projection."""

  scale: float = 1.0  # the 8-bit values are multiplied with it first
  mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # of the scaled values of each colour
  deviation: tuple[float, ...] = (1.0, 1.0, 1.0)

  @property
  def num_regions(self) -> int:
    rows, columns = self.grid
    return rows * columns

  def __call__(
    self, regions: Float[Array, 'i r s'], mask: Bool[Array, 'i r']
  ) -> tuple[Float[Array, 'i r h'], Float[Array, 'i e'] | None]:
    """States of patches, and the embeddings of the pictures where the tower has some.

    Args:
      regions: All patches of each picture, flattened; values from 0 to 255.
      mask: False for patches that are not looked at.
    """
    colours = regions.astype(jnp.promote_types(regions.dtype, jnp.float32)).reshape(*regions.shape[:2], -1, 3)
    pixels = (colours * self.scale - jnp.asarray(self.mean)) / jnp.asarray(self.deviation)
    features = super().__call__(pixels.reshape(regions.shape), jnp.asarray(mask))
    return features.patches.reshape(*regions.shape[:2], -1), features.embedding


def word_tower(settings: Mapping, *, dtype: jnp.dtype, remat: bool) -> WordTower:
  """The tower that `settings` (the section `model.text_tower` of a configuration) describes."""
  return WordTower(**_arguments(settings), dtype=dtype, remat=remat)


def pixel_tower(settings: Mapping, *, dtype: jnp.dtype, remat: bool) -> PixelTower:
  """The tower that `settings` (the section `model.image_tower` of a configuration) describes."""
  return PixelTower(**_arguments(settings), dtype=dtype, remat=remat)


def tower_settings(tower: TextTower | VisionTower) -> dict:
  """The settings of which `word_tower` or `pixel_tower` make an equal one, without what they add."""
  fields = {field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)}
  settings = dataclasses.asdict(tower.layers) | {k: v for k, v in fields.items() if k not in _NOT_SETTINGS}
  return {key: NONE if value is None else value for key, value in settings.items()}


def _arguments(settings: Mapping) -> dict:
  values = {key: None if value == NONE else value for key, value in settings.items()}
  layers = {field.name: values.pop(field.name) for field in dataclasses.fields(LayerSizes)}
  return {'layers': LayerSizes(**layers), **values}
