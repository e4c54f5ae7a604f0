"""The model of HREM's golden files, of the sizes that the weights beside them have, and its encoders."""

import functools
import re
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from golden_checks.golden_file import GoldenFile
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.hrem import HREM
from hrem_jax.models.association import Association
from hrem_jax.models.bert import Bert
from hrem_jax.models.fragment_pooling import POOLED, FragmentPooling
from hrem_jax.models.image_encoder import ImageEncoder, RegionProjection
from hrem_jax.models.interaction import Fusion
from hrem_jax.models.start_values import Linear
from hrem_jax.models.text_encoder import TextEncoder
from hrem_jax.ports.release import read_release

WEIGHTS = 'weights.npz'
NUM_HEADS = 4  # everywhere: the README of the files says so
PARTS = ('image_encoder.', 'text_encoder.', 'criterion.')


def read_variables(arrays: Mapping[str, np.ndarray], parts=PARTS) -> dict:
  """From arrays by the names of the release, each part below a prefix."""
  below = [
    {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)} for prefix in parts
  ]
  return read_release(*below, num_layers=num_layers(below[1]), source='golden')


def num_layers(names: Iterable[str]) -> int:
  """Of BERT, as the names of its arrays say."""
  return 1 + max(int(layer) for name in names for layer in re.findall(r'bert\.encoder\.layer\.(\d+)\.', name))


def build_model(weights: Mapping[str, np.ndarray], dtype, *, fusion: dict | None = None, **objective) -> HREM:
  """Args: `fusion` and `objective` are settings of `Fusion` and the losses of `HREM`."""
  prefix = 'text_encoder.bert.'
  vocabulary, hidden = weights[f'{prefix}embeddings.word_embeddings.weight'].shape
  positions = len(weights[f'{prefix}embeddings.position_embeddings.weight'])
  intermediate = len(weights[f'{prefix}encoder.layer.0.intermediate.dense.weight'])
  size = len(weights['image_encoder.fc.fc.weight'])
  bert = Bert(vocabulary, hidden, num_layers(weights), NUM_HEADS, intermediate, positions, dropout=0.0, dtype=dtype)
  pooling = functools.partial(FragmentPooling, num_heads=NUM_HEADS, dropout=0.0, dtype=dtype)
  return HREM(
    image_encoder=ImageEncoder(RegionProjection(size, dtype), pooling(), dtype=dtype),
    text_encoder=TextEncoder(bert, pooling(), Linear(size, dtype=dtype)),
    association=Association(top_k=len(weights['criterion.adj_model.adj_learning.mlp_i2t.0.weight'])),
    interaction=Fusion(NUM_HEADS, 0.0, **(fusion or {})),
    **objective,
  )


def read_batch(file: GoldenFile, prefix: str = '') -> Batch:
  regions, captions = file.use(f'{prefix}images'), file.use(f'{prefix}captions')
  region_mask = np.arange(regions.shape[1]) < file.use(f'{prefix}image_lengths')[:, None]
  word_mask = np.arange(captions.shape[1]) < file.use(f'{prefix}lengths')[:, None]
  images = ImageInputs(jnp.asarray(regions), jnp.asarray(region_mask))
  texts = TextInputs(jnp.asarray(captions, jnp.int32), jnp.asarray(word_mask))
  return Batch(images, texts, jnp.asarray(file.use(f'{prefix}img_ids'), jnp.int32))


def check_weights(file: GoldenFile) -> None:
  file.use_below('')


def check_encoders(file: GoldenFile) -> None:
  """Embeddings, fragments and BERT's states, in training mode where there are statistics of the batch."""
  weights, batch = file.sibling(WEIGHTS).use_below(''), read_batch(file)
  variables, model = read_variables(weights), build_model(weights, file.dtype)
  train = bool(file.names('bn/'))

  @jax.jit
  def encode(variables):
    def both(method):
      return method.encode_images(batch.images, train=train), method.encode_texts(batch.texts, train=train)

    return model.apply(variables, method=both, mutable=['batch_stats'])

  (images, texts), updated = encode(variables)
  for encoded, prefix in ((images, 'img'), (texts, 'cap')):
    file.compare(f'{prefix}_emb', encoded.embedding)
    file.compare(f'{prefix}_emb_notnorm', encoded.extras[POOLED])
    file.compare(f'{prefix}_emb_pre_pool', encoded.fragments, real=np.asarray(encoded.mask))
  bert = {'params': variables['params']['text_encoder']['language_model']}
  language_model = model.text_encoder.language_model.clone(parent=None)
  states = jax.jit(language_model.apply)(bert, batch.texts.tokens, batch.texts.mask)
  file.compare('bert_emb', states, real=np.asarray(batch.texts.mask))
  if train:
    statistics = updated['batch_stats']['image_encoder']['projection']['mlp_norm']
    file.compare('bn/fc.mlp.bns.0.running_mean', statistics['mean'])
    file.compare('bn/fc.mlp.bns.0.running_var', statistics['variance'])
    file.use('bn/fc.mlp.bns.0.num_batches_tracked')
    file.use_below('bn/fc.mlp.bns.1.')  # never used
