"""The model and the batches of the golden numbers (tests/golden/README.md), in float32 or float64."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.hrem import HREM
from hrem_jax.models.association import Association
from hrem_jax.models.bert import Bert
from hrem_jax.models.fragment_pooling import FragmentPooling
from hrem_jax.models.image_encoder import ImageEncoder, RegionProjection
from hrem_jax.models.interaction import Fusion
from hrem_jax.models.start_values import Linear
from hrem_jax.models.text_encoder import TextEncoder
from hrem_jax.ports.release import read_release

FOLDER = pathlib.Path(__file__).parent / 'golden'
NUM_LAYERS = 2

load = functools.cache(lambda name: dict(np.load(FOLDER / f'{name}.npz')))


def part(arrays: dict, prefix: str, dtype=None) -> dict:
  """The entries below a prefix, without it."""
  return {name[len(prefix) :]: np.asarray(array, dtype) for name, array in arrays.items() if name.startswith(prefix)}


def model(dtype, *, relevance_weight: float = 1.0, normalize_inputs: bool = True, **objective) -> HREM:
  """Args: `objective` are the losses of `HREM` and their weights."""
  pooling = functools.partial(FragmentPooling, num_heads=4, dropout=0.0, dtype=dtype)
  bert = Bert(200, 32, NUM_LAYERS, 4, 64, 64, dropout=0.0, dtype=dtype)
  return HREM(
    image_encoder=ImageEncoder(RegionProjection(64, dtype), pooling(), dtype=dtype),
    text_encoder=TextEncoder(bert, pooling(), Linear(64, dtype=dtype)),
    association=Association(),
    interaction=Fusion(4, 0.0, relevance_weight, normalize_inputs),
    warmup_steps=5,  # in the trajectory
    **objective,
  )


def read_variables(arrays: dict, image: str, text: str, criterion: str, dtype) -> dict:
  parts = [part(arrays, prefix, dtype) for prefix in (image, text, criterion)]
  return read_release(*parts, num_layers=NUM_LAYERS, source='golden')


def variables(dtype) -> dict:
  return read_variables(load('weights'), 'image_encoder.', 'text_encoder.', 'criterion.', dtype)


def batch(arrays: dict, prefix: str, dtype) -> Batch:
  regions, captions = arrays[f'{prefix}images'], arrays[f'{prefix}captions']
  region_mask = jnp.arange(regions.shape[1]) < arrays[f'{prefix}image_lengths'][:, None]
  word_mask = jnp.arange(captions.shape[1]) < arrays[f'{prefix}lengths'][:, None]
  return Batch(
    ImageInputs(jnp.asarray(regions, dtype), region_mask),
    TextInputs(jnp.asarray(captions, jnp.int32), word_mask),
    jnp.asarray(arrays[f'{prefix}img_ids'], jnp.int32),
  )
