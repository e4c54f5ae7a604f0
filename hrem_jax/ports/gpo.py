"""The parameters of GPO's public program (Chen et al., CVPR 2021) as ours: the tables of names."""

from collections.abc import Mapping

import numpy as np

from hrem_jax.ports.bert_names import bert_entries
from hrem_jax.ports.release import bigru_entries
from hrem_jax.ports.tables import Entry, bidirectional_gru, dense, norm, read_entries


def pooling_entries() -> list[Entry]:
  """As `hrem_jax.models.pooling_by_rank.PoolingByRank`."""
  return [
    *bidirectional_gru('pooling', 'gpool.gru'),
    Entry('pooling/score/kernel', 'gpool.linear.weight', np.transpose),
  ]


def image_encoder_entries() -> list[Entry]:
  return [
    *dense('projection/linear', 'fc'),
    *dense('projection/mlp_in', 'mlp.layers.0'),
    *norm('projection/mlp_norm', 'mlp.bns.0'),
    *dense('projection/mlp_out', 'mlp.layers.1'),
    *pooling_entries(),
  ]


def batch_stats_entries() -> list[Entry]:
  return [
    Entry('projection/mlp_norm/mean', 'mlp.bns.0.running_mean'),
    Entry('projection/mlp_norm/variance', 'mlp.bns.0.running_var'),
  ]


def text_encoder_entries(*, text: str = 'bert') -> list[Entry]:
  """The states of the BiGRU are the fragments; those of BERT pass a linear layer."""
  language_model = {
    'bert': lambda: [*bert_entries('language_model/', 'bert.'), *dense('linear', 'linear')],
    'bigru': lambda: bigru_entries('language_model'),
  }
  return [*language_model[text](), *pooling_entries()]


def read_gpo(
  image_encoder: Mapping[str, np.ndarray],
  text_encoder: Mapping[str, np.ndarray],
  *,
  text: str,
  num_layers: int,
  source: str,
) -> dict:
  """The program's two state dicts as `{'params': ..., 'batch_stats': ...}`; `num_layers` of BERT."""

  def read(tensors, entries):
    return read_entries(tensors, entries, source=source, num_layers=num_layers)

  return {
    'params': {
      'image_encoder': read(image_encoder, image_encoder_entries()),
      'text_encoder': read(text_encoder, text_encoder_entries(text=text)),
    },
    'batch_stats': {'image_encoder': read(image_encoder, batch_stats_entries())},
  }
