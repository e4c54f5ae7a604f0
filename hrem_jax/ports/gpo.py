"""The parameters of GPO's public program (Chen et al., CVPR 2021) as ours: the tables of names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hrem_jax.ports.bert_names import bert_entries
from hrem_jax.ports.public_program import (
  Layers,
  Options,
  Part,
  Program,
  StateDicts,
  data_name,
  projection_settings,
  shape_of,
  text_settings,
)
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


def layers_of(found: StateDicts, source: str) -> Layers:
  settings = projection_settings(found.image, 'fc.weight', source) | text_settings(found.text, source)
  hidden_size, position_size = shape_of(found.image, 'gpool.gru.weight_ih_l0', 2, source)
  text = settings['model.text']
  parts = [
    Part('params/image_encoder', found.image, image_encoder_entries()),
    Part('batch_stats/image_encoder', found.image, batch_stats_entries()),
    Part('params/text_encoder', found.text, text_encoder_entries(text=text)),
  ]
  settings |= {'gpo.hidden_size': hidden_size // 3, 'gpo.position_size': position_size}
  return Layers(f'{text} encoders, pooling by rank', parts, settings | TEXT_RECIPES[text])


# No option says these: each text encoder has a program of its own.
TEXT_RECIPES: dict[str, dict[str, Any]] = {
  'bert': {},
  'bigru': {
    'data.min_word_count': 4,
    'optimizer.language_model_lr_factor': 1.0,
    'optimizer.weight_decay': 0.01,
  },
}


def schedules(options: Options, source: str) -> dict[str, Any]:
  """The rate falls once; `max_violation` is what the hinge was at the end, always True behind the first epochs."""
  settings = data_name(options, source)
  if 'lr_update' in options:
    settings['optimizer.decay_epochs'] = (options['lr_update'],)
  if 'vse_mean_warmup_epochs' in options:
    settings['loss.hardest_from'] = (options['vse_mean_warmup_epochs'], 'epochs')
  return settings


PROGRAM = Program(
  names='fc, mlp and gpool',
  fits=lambda found: 'fc.weight' in found.image and any(name.startswith('gpool.') for name in found.image),
  layers=layers_of,
  options={
    'margin': 'loss.margin',
    'learning_rate': 'optimizer.learning_rate',
    'grad_clip': 'optimizer.clip_norm',
    'batch_size': 'training.batch_size',
    'num_epochs': 'training.num_epochs',
  },
  derived=schedules,
  foreign=r'gpool\.gru\..*_l[1-9]',
  unused=r'mlp\.bns\.1\.',
)
