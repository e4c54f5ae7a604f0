"""The parameters of SCAN's public program (Lee et al., ECCV 2018) as ours: the tables of names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hrem_jax.errors import UserError, shown
from hrem_jax.ports.public_program import (
  Layers,
  Options,
  Part,
  Program,
  StateDicts,
  data_name,
  projection_settings,
  text_settings,
)
from hrem_jax.ports.release import bigru_entries
from hrem_jax.ports.tables import Entry, dense, read_entries


def image_encoder_entries() -> list[Entry]:
  return dense('projection/linear', 'fc')


def text_encoder_entries() -> list[Entry]:
  return bigru_entries('language_model')


def read_scan(image_encoder: Mapping[str, np.ndarray], text_encoder: Mapping[str, np.ndarray], *, source: str) -> dict:
  """The program's two state dicts as `{'params': ...}`."""
  return {
    'params': {
      'image_encoder': read_entries(image_encoder, image_encoder_entries(), source=source),
      'text_encoder': read_entries(text_encoder, text_encoder_entries(), source=source),
    }
  }


def fits(found: StateDicts) -> bool:
  """One linear layer on regions, and a BiGRU alone."""
  others = {name.split('.')[0] for name in (*found.image, *found.text)} - {'fc', 'embed', 'rnn'}
  return not others and 'fc.weight' in found.image and {'embed.weight', 'rnn.weight_hh_l0_reverse'} <= {*found.text}


def layers_of(found: StateDicts, source: str) -> Layers:
  settings = projection_settings(found.image, 'fc.weight', source) | text_settings(found.text, source)
  if settings['model.text'] != 'bigru':
    raise UserError(f'{source}: its text encoder is a BERT, SCAN has a BiGRU: no embed.weight')
  parts = [
    Part('params/image_encoder', found.image, image_encoder_entries()),
    Part('params/text_encoder', found.text, text_encoder_entries()),
  ]
  return Layers('bigru encoders, stacked cross attention', parts, settings)


def schedules(options: Options, source: str) -> dict[str, Any]:
  """The rate falls after every `lr_update` epochs."""
  settings = data_name(options, source)
  if 'lr_update' in options:
    every, last = options['lr_update'], options.get('num_epochs', 30)
    if not all(type(number) is int for number in (every, last)) or every < 1 or not 0 < last <= MOST_EPOCHS:
      found = f'lr_update is {shown(every)} and num_epochs {shown(last)}'
      raise UserError(f'{source}: {found}, expected whole numbers from 1, num_epochs up to {MOST_EPOCHS:,}')
    settings['optimizer.decay_epochs'] = tuple(range(every, last, every)) or (every,)
  return settings


MOST_EPOCHS = 10_000  # a training has; the times at which the rate falls are listed
NORMALISATIONS = ('clipped_l2norm', 'l2norm', 'clipped', 'no_norm', 'softmax')  # by the names that we have, too
PROGRAM = Program(
  names='fc, embed and rnn alone, of both directions',
  fits=fits,
  layers=layers_of,
  options={
    'lambda_softmax': 'scan.inverse_temperature',
    'lambda_lse': 'scan.lse_factor',
    'margin': 'loss.margin',
    'max_violation': 'loss.hardest_negative',
    'learning_rate': 'optimizer.learning_rate',
    'grad_clip': 'optimizer.clip_norm',
    'batch_size': 'training.batch_size',
    'num_epochs': 'training.num_epochs',
  },
  words={
    'cross_attn': ('scan.asks', {'t2i': 'words', 'i2t': 'regions'}),
    'agg_func': ('scan.aggregation', {'LogSumExp': 'lse', 'Mean': 'mean', 'Max': 'max', 'Sum': 'sum'}),
    'raw_feature_norm': ('scan.normalisation', {name: name for name in NORMALISATIONS}),
  },
  derived=schedules,
)
