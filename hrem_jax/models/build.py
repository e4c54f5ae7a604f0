"""The encoders that a configuration describes; what a method brings are its projection and its poolings."""

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from hrem_jax.models.bert import Bert
from hrem_jax.models.bigru import BiGru
from hrem_jax.models.fragment_pooling import ZeroGain
from hrem_jax.models.image_encoder import ImageEncoder
from hrem_jax.models.start_values import Linear
from hrem_jax.models.text_encoder import TextEncoder
from hrem_jax.models.tower_encoders import pixel_tower, word_tower

# All of them take the section `model`, and `size`, the embedding size.
TEXT_ENCODERS = {
  'bert': lambda model, size: Bert(**model.bert, dtype=compute_type(model), remat=model.remat),
  'bigru': lambda model, size: BiGru(**model.bigru, hidden_size=size, dtype=compute_type(model)),
  'tower': lambda model, size: word_tower(model.text_tower, dtype=compute_type(model), remat=model.remat),
}
IMAGE_TOWERS = {
  'regions': lambda model: None,
  'tower': lambda model: pixel_tower(model.image_tower, dtype=compute_type(model), remat=model.remat),
}
STARTS = {'random': lambda: None, 'zero_shot': lambda: ZeroGain()}


def compute_type(model: ml_collections.ConfigDict) -> jnp.dtype:
  return jnp.dtype(model.dtype)


def build_image_encoder(model: ml_collections.ConfigDict, *, projection: nn.Module, pooling: nn.Module) -> ImageEncoder:
  """The image encoder of the section `model` of a configuration."""
  tower, start = IMAGE_TOWERS[model.image](model), STARTS[model.start]()
  return ImageEncoder(projection, pooling, compute_type(model), model.parts, tower, start)


def build_text_encoder(model: ml_collections.ConfigDict, *, pooling: nn.Module, linear: Linear | None) -> TextEncoder:
  """The text encoder of the section `model`; without `linear` the states of its language model are the fragments."""
  language_model = TEXT_ENCODERS[model.text](model, model.embedding_size)
  return TextEncoder(language_model, pooling, linear, model.parts, STARTS[model.start]())
