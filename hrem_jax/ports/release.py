"""The parameters of the authors' PyTorch program as ours: the tables of names."""

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
  Tensors,
  projection_settings,
  shape_of,
  text_settings,
)
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


def layers_of(found: StateDicts, source: str) -> Layers:
  """A graph, a linear layer behind the BiGRU and the criterion are read where they are."""
  settings = projection_settings(found.image, 'fc.fc.weight', source) | text_settings(found.text, source)
  text = settings['model.text']
  graphs = [any(name.startswith('aggr.') for name in tensors) for tensors in (found.image, found.text)]
  has_graph = any(name.startswith('gnn.') for name in found.criterion)
  linear = next((name for name in ('linear', 'fc') if f'{name}.weight' in found.text), None)
  identity = identity_entries(found.text, source) if text == 'bigru' and linear is None else []
  text_entries = text_encoder_entries(text=text, linear=None if identity else linear or 'linear', graph=graphs[1])
  parts = [
    Part('params/image_encoder', found.image, image_encoder_entries(graph=graphs[0])),
    Part('batch_stats/image_encoder', found.image, batch_stats_entries()),
    Part('params/text_encoder', found.text, text_entries + identity),
  ]
  settings |= {
    'hrem.image_graph': graphs[0],
    'hrem.text_graph': graphs[1],
    'hrem.interaction': 'fusion' if has_graph else 'none',
    'evaluation.select_on': 'test',
  }
  if has_graph:
    parts += [
      Part('params/association', found.criterion, association_entries()),
      Part('params/interaction', found.criterion, interaction_entries()),
    ]
    mlp = 'adj_model.adj_learning.mlp_i2t.0.weight'
    settings['hrem.association.top_k'] = shape_of(found.criterion, mlp, 2, source)[1]
  return Layers(f'{text} encoders {"with" if has_graph else "without"} the association graph', parts, settings)


def identity_entries(text: Tensors, source: str) -> list[Entry]:
  """A linear layer that changes nothing, where the states of the BiGRU themselves are the fragments."""
  size = min(shape_of(text, 'rnn.weight_hh_l0', 2, source))  # size x size numbers are no more than the tensor has
  return [
    Entry('linear/kernel', 'rnn.weight_hh_l0', lambda _: np.eye(size, dtype=np.float32)),
    Entry('linear/bias', 'rnn.bias_hh_l0', lambda _: np.zeros(size, np.float32)),
  ]


def dropout(options: Options, source: str) -> dict[str, Any]:
  """One rate for all dropout, that of a BERT, too."""
  return {'model.bert.dropout': options['dropout']} if 'dropout' in options else {}


LOSSES = {'trip': 'distance_weighted', 'vse': 'hinge'}
PROGRAM = Program(
  names='fc.fc, fc.mlp, and aggr or gnn where there is a graph',
  fits=lambda found: any(name.startswith('fc.fc.') for name in found.image),
  layers=layers_of,
  options={
    'nhead': 'hrem.num_heads',
    'dropout': 'hrem.dropout',
    'residual_weight': 'hrem.residual_weight',
    'mask_weight': 'hrem.relevance_weight',
    'norm_input': 'hrem.normalize_inputs',
    'margin': 'loss.margin',
    'max_violation': 'loss.hardest_negative',
    'warmup': 'hrem.warmup_steps',
    'reg_loss_weight': 'hrem.relation_weight',
    'cross_loss': 'hrem.cross_weight',
    'learning_rate': 'optimizer.learning_rate',
    'graph_lr_factor': 'hrem.graph_lr_factor',
    'lr_schedules': 'optimizer.decay_epochs',
    'decay_rate': 'optimizer.decay_factor',
    'grad_clip': 'optimizer.clip_norm',
    'batch_size': 'training.batch_size',
    'num_epochs': 'training.num_epochs',
    'dataset': 'data.name',
  },
  words={'base_loss': ('loss.base', LOSSES), 'gnn_loss': ('hrem.enhanced', LOSSES)},
  derived=dropout,
  foreign=r'gpool\.|graph_pool\.|aggr\.layers\.[1-9]|gnn\.layers\.[1-9]',
  unused=r'fc\.mlp\.bns\.1\.',
)
