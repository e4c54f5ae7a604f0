"""The parameters of the authors' PyTorch program as ours: the tables of names."""

from collections.abc import Mapping

import numpy as np

from hrem_jax.ports.bert_names import bert_entries
from hrem_jax.ports.tables import Entry, bidirectional_gru, dense, fused_attention, norm, read_entries


def transformer_entries(ours: str, theirs: str) -> list[Entry]:
  """`torch.nn.TransformerEncoderLayer` as `hrem_jax.models.transformer.TransformerLayer`."""
  return [
    *fused_attention(f'{ours}/attention', f'{theirs}.self_attn'),
    *norm(f'{ours}/attention_norm', f'{theirs}.norm1'),
    *dense(f'{ours}/feed_forward_in', f'{theirs}.linear1'),
    *dense(f'{ours}/feed_forward_out', f'{theirs}.linear2'),
    *norm(f'{ours}/feed_forward_norm', f'{theirs}.norm2'),
  ]


def image_encoder_entries(*, graph: bool = True) -> list[Entry]:
  return [
    *dense('projection/linear', 'fc.fc'),
    *dense('projection/mlp_in', 'fc.mlp.layers.0'),
    *norm('projection/mlp_norm', 'fc.mlp.bns.0'),
    *dense('projection/mlp_out', 'fc.mlp.layers.1'),
    *(transformer_entries('pooling/graph', 'aggr.layers.0') if graph else []),
  ]


def batch_stats_entries() -> list[Entry]:
  return [
    Entry('projection/mlp_norm/mean', 'fc.mlp.bns.0.running_mean'),
    Entry('projection/mlp_norm/variance', 'fc.mlp.bns.0.running_var'),
  ]


def bigru_entries(ours: str) -> list[Entry]:
  """`embed` and `rnn` as `hrem_jax.models.bigru.BiGru`."""
  return [Entry(f'{ours}/word_embeddings', 'embed.weight'), *bidirectional_gru(ours, 'rnn')]


def text_encoder_entries(*, text: str = 'bert', linear: str | None = 'linear', graph: bool = True) -> list[Entry]:
  """Args: `linear` is the name of the layer behind the language model, None where there is none."""
  language_model = {'bert': bert_entries('language_model/', 'bert.'), 'bigru': bigru_entries('language_model')}
  return [
    *language_model[text],
    *(dense('linear', linear) if linear else []),
    *(transformer_entries('pooling/graph', 'aggr.layers.0') if graph else []),
  ]


def association_entries() -> list[Entry]:
  return [
    entry
    for direction in ('i2t', 't2i')
    for layer, position in (('hidden', 0), ('output', 3))
    for entry in dense(f'{direction}/{layer}', f'adj_model.adj_learning.mlp_{direction}.{position}')
  ]


def interaction_entries() -> list[Entry]:
  return transformer_entries('layer', 'gnn.layers.0')


def read_release(
  image_encoder: Mapping[str, np.ndarray],
  text_encoder: Mapping[str, np.ndarray],
  criterion: Mapping[str, np.ndarray],
  *,
  num_layers: int,
  source: str,
) -> dict:
  """The release's three state dicts as `{'params': ..., 'batch_stats': ...}` of `hrem_jax.methods.hrem.HREM`."""

  def read(tensors, entries):
    return read_entries(tensors, entries, source=source, num_layers=num_layers)

  return {
    'params': {
      'image_encoder': read(image_encoder, image_encoder_entries()),
      'text_encoder': read(text_encoder, text_encoder_entries()),
      'association': read(criterion, association_entries()),
      'interaction': read(criterion, interaction_entries()),
    },
    'batch_stats': {'image_encoder': read(image_encoder, batch_stats_entries())},
  }
