"""A BERT from a Hugging Face folder: sizes from `config.json`, weights from its safetensors, by name."""

import pathlib

from hrem_jax.errors import UserError, shown
from hrem_jax.files import read_json_object
from hrem_jax.paths import local_path
from hrem_jax.ports.bert_names import bert_entries
from hrem_jax.ports.json_settings import MOST, is_finite
from hrem_jax.ports.tables import read_entries
from hrem_jax.ports.tensor_files import read_tensors

WANTED_FILES = (
  *('config.json', 'model*.safetensors*', 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'),
  *('preprocessor_config.json', 'processor_config.json'),
)


def find_folder(name: str, *, key: str = 'weights') -> pathlib.Path:
  """The folder that `name` means: a local one, or a hub's name (`google-bert/bert-base-uncased`), fetched or cached.

  Args:
    name: A path or a hub's name.
    key: Of the section `model` of the configuration that says it, for the message.

  Raises:
    UserError: There is no such folder, and the hub cannot be reached or does not know the name.
  """
  folder = local_path(name)
  if folder.is_dir():
    return folder
  problem = 'no such folder'
  if not name.startswith(('/', '.', '~')):
    import huggingface_hub  # comes with transformers; half a second that local folders need not pay

    try:
      return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(WANTED_FILES)))
    except Exception as error:  # every kind of network trouble
      problem = f'no such folder here, and the Hugging Face hub did not give it ({type(error).__name__})'
  raise UserError(
    f'config.model.{key}={name!r}: {problem}; expected is a folder with config.json, model.safetensors and its '
    'vocabulary, made on a machine with a network by, for example, `hf download google-bert/bert-base-uncased '
    '--local-dir bert-base-uncased`; towers of own pictures: the folder that `extract --encoder` was given'
  )


def bert_sizes(folder: pathlib.Path) -> dict:
  """The section `model.bert` of a configuration from the folder's `config.json`.

  Raises:
    UserError: The file is missing or describes something that is not a BERT as it is built here.
  """
  path = folder / 'config.json'
  if not path.is_file():
    raise UserError(f'{path}: no such file; expected is a Hugging Face folder of a BERT')
  config = read_json_object(path)
  try:
    expected = {
      'model_type': 'bert',
      'hidden_act': 'gelu',
      'position_embedding_type': 'absolute',
      'type_vocab_size': 2,
    }
    for key, value in expected.items():
      if config.get(key, value) != value:
        raise UserError(f'{path}: {key} is {shown(config[key])}, expected {value!r}')
    numbers = dict(
      dropout=config.get('hidden_dropout_prob', 0.1),
      norm_epsilon=config.get('layer_norm_eps', 1e-12),
    )
    sizes = dict(
      vocab_size=config['vocab_size'],
      hidden_size=config['hidden_size'],
      num_layers=config['num_hidden_layers'],
      num_heads=config['num_attention_heads'],
      intermediate_size=config['intermediate_size'],
      max_positions=config['max_position_embeddings'],
    )
  except KeyError as error:
    raise UserError(f'{path}: no key {error}') from error
  for name, number in numbers.items():
    if not is_finite(number) or not 0 <= number < 1:
      raise UserError(f'{path}: {name} is {shown(number)}, expected a number from 0 to below 1')
  for name, size in sizes.items():
    if type(size) is not int or not 1 <= size <= MOST:
      raise UserError(f'{path}: {name} is {shown(size)}, expected a positive integer up to {MOST:,}')
  if sizes['hidden_size'] % sizes['num_heads']:
    raise UserError(f'{path}: hidden_size {sizes["hidden_size"]} is not divisible by {sizes["num_heads"]} heads')
  return sizes | {name: float(number) for name, number in numbers.items()}


def read_bert(folder: pathlib.Path, *, num_layers: int) -> dict:
  """The parameters of `hrem_jax.models.bert.Bert` from the folder's tensors; what it has more (the pooler) is left.

  Raises:
    UserError: A file is missing or damaged, or a tensor is missing.
  """
  tensors = read_tensors(folder)
  prefix = 'bert.' if any(name.startswith('bert.') for name in tensors) else ''
  return read_entries(
    tensors.renamed(_today), bert_entries(theirs=prefix), source=tensors.source, num_layers=num_layers
  )


def _today(name: str) -> str:
  """Files from the first years call a norm's parameters gamma and beta."""
  return name.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')


def merge_checked(ours: dict, theirs: dict, *, source: str, path: str = '') -> dict:
  """`theirs` in place of `ours`, whose tree and shapes it must have."""
  if isinstance(ours, dict):
    return {name: merge_checked(ours[name], theirs[name], source=source, path=f'{path}/{name}') for name in ours}
  if ours.shape != theirs.shape:
    raise UserError(f'{source}: {path[1:]} has shape {theirs.shape}, the model expects {ours.shape}')
  return theirs
