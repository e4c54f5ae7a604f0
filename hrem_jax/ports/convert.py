"""A checkpoint of the authors' program, or of one with the same layers, as our parameters and settings."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hrem_jax.errors import UserError, shown
from hrem_jax.ports.release import (
  association_entries,
  batch_stats_entries,
  image_encoder_entries,
  interaction_entries,
  text_encoder_entries,
)
from hrem_jax.ports.tables import Entry, read_entries
from hrem_jax.ports.torch_names import Namespace
from hrem_jax.ports.torch_pickle import read_checkpoint

Tensors = Mapping[str, np.ndarray]
MOST_STEPS = 2**31 - 1  # the state of a training counts them in 32 bits

# In the release's files, but without effect on any embedding.
UNUSED = re.compile(r'fc\.mlp\.bns\.1\.|bert\.pooler\.|bert\.embeddings\.position_ids$|.*\.num_batches_tracked$')
# With an effect that our encoders do not have: generalised pooling, more layers, an image backbone.
FOREIGN = re.compile(
  r'gpool\.|graph_pool\.|aggr\.layers\.[1-9]|gnn\.layers\.[1-9]|rnn\..*_l[1-9]|fc\.mlp\.layers\.[2-9]|backbone\.|cnn\.'
)
# Options of the release that are settings of ours. What is not here keeps our default.
OPTIONS = {
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
  'grad_clip': 'optimizer.clip_norm',
  'batch_size': 'training.batch_size',
  'num_epochs': 'training.num_epochs',
}


@dataclasses.dataclass(frozen=True)
class ReleaseModel:
  """A converted checkpoint, in memory."""

  method: str  # whose checkpoint it is
  about: str  # what was found, for a person
  variables: dict  # {'params': ..., 'batch_stats': ...} of `hrem_jax.methods.hrem.HREM`, float32
  settings: dict[str, Any]  # by the dotted keys of our configuration
  options: dict[str, Any]  # the release's own, as in the file
  step: int
  rsum: float | None  # of the split that the release selected on
  left_out: list[str]  # tensors that no table of ours knows
  guessed_heads: int | None  # of its BERT, where nothing better is known


def read_release_model(path: pathlib.Path) -> ReleaseModel:
  """Reads and translates; nothing is written.

  Raises:
    UserError: The file is not such a checkpoint, or it has layers that our encoders do not have.
  """
  source, content = str(path), read_checkpoint(path)
  image, text, criterion = _state_dicts(content, source)
  foreign = sorted(name for tensors in (image, text, criterion) for name in tensors if FOREIGN.match(name))
  if foreign:
    raise UserError(f'{source}: layers that hrem_jax does not have, its embeddings would differ: {listed(foreign)}')
  tables, settings = _tables(image, text, criterion, source)
  layers = settings.get('model.bert.num_layers', 0)
  trees, left_out = {}, []
  for tensors, entries_of_part in ((image, 'image_encoder'), (text, 'text_encoder'), (criterion, 'criterion')):
    known = set()
    for part, entries in tables[entries_of_part].items():
      trees[part] = read_entries(tensors, entries, source=source, num_layers=layers)
      known |= {entry.theirs.format(layer=layer) for entry in entries for layer in range(max(layers, 1))}
    left_out += sorted(name for name in set(tensors) - known if not UNUSED.match(name))
  batch_stats = {'image_encoder': trees.pop('batch_stats')}
  if settings['model.text'] == 'bigru':  # in VSE-infinity the states themselves are the fragments
    identity = np.eye(settings['model.embedding_size'], dtype=np.float32)
    trees['text_encoder'].setdefault('linear', {'kernel': identity, 'bias': np.zeros(len(identity), np.float32)})
  options = _options(content, source)
  if any(_flag(options, name, source) for name in ('no_imgnorm', 'no_txtnorm')):
    raise UserError(
      f'{source}: trained without unit-norm embeddings (opt.no_imgnorm, opt.no_txtnorm), which we have not'
    )
  settings |= _settings(options)
  if settings['model.text'] == 'bert' and 'hrem.dropout' in settings:
    settings['model.bert.dropout'] = settings['hrem.dropout']
  graph = 'with' if settings['hrem.interaction'] == 'fusion' else 'without'
  return ReleaseModel(
    method='hrem',
    about=f'{settings["model.text"]} encoders {graph} the association graph',
    variables={'params': trees, 'batch_stats': batch_stats},
    settings=settings,
    options=options,
    step=_number(content, 'Eiters', int, source) or 0,
    rsum=_number(content, 'best_rsum', float, source),
    left_out=left_out,
    guessed_heads=settings.get('hrem.num_heads'),
  )


def listed(names: list[str], shown: int = 4) -> str:
  return ', '.join(names[:shown]) + (f' and {len(names) - shown} more' if len(names) > shown else '')


def _state_dicts(content: Any, source: str) -> tuple[Tensors, Tensors, Tensors]:
  """The image encoder's, the text encoder's and the criterion's; the last is empty where the file has none."""
  model = content.get('model') if isinstance(content, dict) else None
  if not isinstance(model, list | tuple) or len(model) not in (2, 3) or not all(isinstance(x, dict) for x in model):
    raise UserError(f"{source}: no checkpoint of the release: expected is 'model' = [image, text] state dictionaries")
  criterion = model[2] if len(model) == 3 else content.get('criterion')
  parts = [*model[:2], criterion if isinstance(criterion, dict) else {}]
  return tuple(_tensors(part, source) for part in parts)


def _tensors(state_dict: dict, source: str) -> Tensors:
  """Float32 arrays by name, without the `module` that DataParallel puts into names."""
  tensors = {}
  for name, array in state_dict.items():
    if not isinstance(name, str) or not isinstance(array, np.ndarray):
      raise UserError(f'{source}: {str(name)[:80]!r} in a state dictionary is no tensor')
    plain = '.'.join(part for part in name.split('.') if part != 'module')
    if plain in tensors:
      raise UserError(f'{source}: tensor {plain[:80]!r} occurs twice')
    tensors[plain] = np.asarray(array, np.float32)
  return tensors


def _tables(image: Tensors, text: Tensors, criterion: Tensors, source: str) -> tuple[dict, dict[str, Any]]:
  """What to read of each state dictionary, and the settings that follow from names and shapes."""
  kinds = {'bert': 'bert.embeddings.word_embeddings.weight', 'bigru': 'embed.weight'}
  kind = next((kind for kind, name in kinds.items() if name in text), None)
  if kind is None:
    raise UserError(f'{source}: its text encoder is neither a BERT nor a BiGRU: no {" or ".join(kinds.values())}')
  linear = next((name for name in ('linear', 'fc') if f'{name}.weight' in text), None if kind == 'bigru' else 'linear')
  graphs = [any(name.startswith('aggr.') for name in tensors) for tensors in (image, text)]
  has_graph = any(name.startswith('gnn.') for name in criterion)
  tables: dict[str, dict[str, list[Entry]]] = {
    'image_encoder': {'image_encoder': image_encoder_entries(graph=graphs[0]), 'batch_stats': batch_stats_entries()},
    'text_encoder': {'text_encoder': text_encoder_entries(text=kind, linear=linear, graph=graphs[1])},
    'criterion': {'association': association_entries(), 'interaction': interaction_entries()} if has_graph else {},
  }
  embedding_size, region_size = _shape(image, 'fc.fc.weight', 2, source)
  settings = {
    'model.text': kind,
    'model.embedding_size': embedding_size,
    'model.region_size': region_size,
    'hrem.image_graph': graphs[0],
    'hrem.text_graph': graphs[1],
    'hrem.interaction': 'fusion' if has_graph else 'none',
  }
  if has_graph:
    mlp = 'adj_model.adj_learning.mlp_i2t.0.weight'
    settings['hrem.association.top_k'] = _shape(criterion, mlp, 2, source)[1]
  return tables, settings | (_bert_settings(text, source) if kind == 'bert' else _bigru_settings(text, source))


def _bert_settings(text: Tensors, source: str) -> dict[str, int]:
  numbers = [int(found[1]) for name in text if (found := re.match(r'bert\.encoder\.layer\.(\d{1,4})\.', name))]
  vocab_size, hidden_size = _shape(text, 'bert.embeddings.word_embeddings.weight', 2, source)
  sizes = {
    'vocab_size': vocab_size,
    'hidden_size': hidden_size,
    'num_layers': max(numbers, default=0) + 1,
    'intermediate_size': _shape(text, 'bert.encoder.layer.0.intermediate.dense.weight', 2, source)[0],
    'max_positions': _shape(text, 'bert.embeddings.position_embeddings.weight', 2, source)[0],
  }
  return {f'model.bert.{key}': size for key, size in sizes.items()}


def _bigru_settings(text: Tensors, source: str) -> dict[str, int]:
  vocab_size, word_size = _shape(text, 'embed.weight', 2, source)
  return {'model.bigru.vocab_size': vocab_size, 'model.bigru.word_size': word_size}


def _shape(tensors: Tensors, name: str, dimensions: int, source: str) -> tuple[int, ...]:
  if name not in tensors or tensors[name].ndim != dimensions or not tensors[name].size:
    raise UserError(f'{source}: no tensor {name} with {dimensions} dimensions')
  return tensors[name].shape


def _options(content: dict, source: str) -> dict[str, Any]:
  options = content.get('opt')
  options = options.values if isinstance(options, Namespace) else options
  if options is not None and not isinstance(options, dict):
    raise UserError(f"{source}: 'opt' is a {type(options).__name__}, expected an argparse.Namespace")
  return options or {}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
  settings = {ours: options[theirs] for theirs, ours in OPTIONS.items() if theirs in options}
  losses = {'trip': 'distance_weighted', 'vse': 'hinge'}
  for theirs, ours in (('base_loss', 'loss.base'), ('gnn_loss', 'hrem.enhanced')):
    if isinstance(options.get(theirs), str) and options[theirs] in losses:
      settings[ours] = losses[options[theirs]]
  return settings


def _flag(options: dict[str, Any], name: str, source: str) -> bool:
  """Whether an option is set; UserError where its value is none that a flag has."""
  value = options.get(name, False)
  if value is not None and not isinstance(value, bool | int):
    raise UserError(f'{source}: the option {name} is {shown(value)}, expected True or False')
  return bool(value)


def _number(content: dict, name: str, kind: type, source: str) -> Any:
  """The number of this name, None where there is none; UserError where it is something else or cannot be kept."""
  value = content.get(name)
  if value is None:
    return None
  if type(value) not in (int, float) or not 0 <= value <= MOST_STEPS:
    raise UserError(f'{source}: {name} is {shown(value)}, expected a number from 0 to {MOST_STEPS:,}')
  return kind(value)
