"""`python -m hrem_jax convert`: the release's checkpoint as a workdir of ours (docs/checkpoints.md)."""

import pathlib
from collections.abc import Callable
from typing import Any

import flax
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from hrem_jax import configuration
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.data.vocabularies import read_scan_vocabulary
from hrem_jax.errors import UserError, shown
from hrem_jax.methods.registry import build_method, default_config, init_variables, validate
from hrem_jax.paths import local_path
from hrem_jax.ports import huggingface
from hrem_jax.ports.convert import ReleaseModel, listed, read_release_model
from hrem_jax.retrieval.checkpoint_folder import StateSave, checkpoint_folder
from hrem_jax.retrieval.checksums import write_checksums
from hrem_jax.retrieval.folders import check_new, new_folder
from hrem_jax.retrieval.run import score_of, write_run

BERT_HEAD_SIZE = 64  # of every published BERT


def convert(
  checkpoint: pathlib.Path,
  output: pathlib.Path,
  *,
  vocabulary: pathlib.Path | None = None,
  data: pathlib.Path | None = None,
  data_name: str | None = None,
  bert_heads: int | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Writes the workdir `output`, which evaluates, encodes and exports as one that was trained here.

  Args:
    checkpoint: The authors' `.pth`.
    output: A folder that is new or empty.
    vocabulary: Of the text encoder: a Hugging Face folder, `vocab.txt`, `tokenizer.json` or a SCAN vocabulary.
    data: `config.data.directory`; it is kept as an absolute path, so that the workdir may be used from anywhere.
    data_name: `config.data.name`; what the release's options say by default.
    bert_heads: Attention heads of the BERT; the file does not say them.
    say: Gets a line for each thing that a person should know.

  Raises:
    UserError: Something does not fit; nothing was written.
  """
  check_new(output)
  checkpoint_folder(output)  # its name is refused now
  release = read_release_model(checkpoint)
  config = _config(release, data_name, str(checkpoint))
  if data is not None:
    config.data.directory = str(local_path(data).absolute())
  if config.model.text == 'bert':
    say(_set_bert_heads(config, release, vocabulary, bert_heads))
  validate(config)
  tokenizer = _read_tokenizer(vocabulary, config.model.text)
  _fit_word_embeddings(config, release, tokenizer, str(vocabulary))
  variables = _checked(config, release, str(checkpoint))
  if release.left_out:
    say(f'left out, {len(release.left_out)} tensors that hrem_jax does not know: {listed(release.left_out, 20)}')
  _write(output, config, tokenizer, variables, release)
  say(f'{output}: {release.about}, step {release.step}')


def _config(release: ReleaseModel, data_name: str | None, source: str) -> ml_collections.ConfigDict:
  config = default_config(release.method)
  name = data_name or release.options.get('dataset', config.data.name)
  for key, value in {**release.settings, 'data.name': name}.items():
    _set(config, key, value, source)
  for theirs, ours in (('lr_schedules', 'decay_epochs'), ('decay_rate', 'decay_factor')):
    if theirs in release.options:
      _set(config, f'optimizer.{ours}', release.options[theirs], source)
  config.evaluation.select_on = 'test'  # so does the release
  if config.model.text == 'bert':
    positions, buckets = config.model.bert.max_positions, config.data.length_buckets
    if buckets[-1] > positions:
      config.data.length_buckets = (*(width for width in buckets if width < positions), positions)
  return config


def _set(config: ml_collections.ConfigDict, key: str, value: Any, source: str) -> None:
  """Sets a dotted key to a value of the file in the type of its default."""
  section, name = key.rsplit('.', 1)
  kind = type(configuration.value_at(config, key))
  fits = isinstance(value, str) if kind is str else isinstance(value, int | float) and kind is not tuple
  if kind is tuple:
    fits = isinstance(value, list | tuple) and all(isinstance(item, int) for item in value)
  try:
    converted = kind(value) if fits else ()
    numbers = converted if kind is tuple else (converted,)
    fits = fits and all(abs(number) < 2**63 for number in numbers if type(number) is int)
  except (ValueError, OverflowError):
    fits = False
  if not fits:
    found = f'an option of type {type(value).__name__} for config.{key}'
    raise UserError(f'{source}: {found}, expected {kind.__name__}, found {shown(value)}')
  configuration.value_at(config, section)[name] = converted


def _set_bert_heads(
  config: ml_collections.ConfigDict, release: ReleaseModel, vocabulary: pathlib.Path | None, given: int | None
) -> str:
  """Sets the number of heads, which no tensor shows, and returns a line that says where it is from."""
  bert = config.model.bert
  if given is not None:
    heads, origin = given, '--bert-heads'
  elif vocabulary is not None and (vocabulary / 'config.json').is_file():
    sizes = huggingface.bert_sizes(vocabulary)
    for key in ('vocab_size', 'hidden_size', 'num_layers', 'intermediate_size', 'max_positions'):
      if sizes[key] != bert[key]:
        raise UserError(f'{vocabulary / "config.json"}: {key} is {sizes[key]}, the checkpoint has {bert[key]}')
    heads, origin = sizes['num_heads'], str(vocabulary / 'config.json')
    bert.norm_epsilon = sizes['norm_epsilon']
  elif bert.hidden_size % BERT_HEAD_SIZE == 0:
    heads, origin = bert.hidden_size // BERT_HEAD_SIZE, f'{BERT_HEAD_SIZE} channels a head, as in every published BERT'
  else:
    heads, origin = release.guessed_heads or bert.num_heads, 'a guess; --bert-heads says another'
  if heads < 1 or bert.hidden_size % heads:
    raise UserError(f'a BERT of hidden size {bert.hidden_size} cannot have {heads} heads ({origin})')
  bert.num_heads = heads
  return f'heads of the BERT: {heads} ({origin})'


def _read_tokenizer(path: pathlib.Path | None, text: str) -> TextTokenizer:
  if path is None:
    wanted = {
      'bert': 'vocab.txt, tokenizer.json or the Hugging Face folder of its BERT (bert-base-uncased for the release)',
      'bigru': 'the SCAN vocabulary (JSON) or tokenizer.json that it was trained with',
    }
    raise UserError(f'--vocabulary is missing: a checkpoint does not hold its words; expected is {wanted[text]}')
  if path.is_dir():
    return tokenizers.read_wordpiece(path)
  try:
    content = path.read_text('utf-8')
  except OSError as error:
    raise UserError(f'{path}: cannot be read: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'{path}: not a vocabulary: {error}') from error
  if path.suffix != '.json':
    return tokenizers.wordpiece(tokenizers.numbered_lines(content), source=str(path))
  if '"word2idx"' in content:
    return read_scan_vocabulary(path)
  return tokenizers.from_json(content, source=str(path))


def _fit_word_embeddings(
  config: ml_collections.ConfigDict, release: ReleaseModel, tokenizer: TextTokenizer, source: str
) -> None:
  """Every token has a row and every row a token; SCAN vocabularies have no `<mask>`, which gets a row of zeros."""
  sizes = config.model[config.model.text]
  rows, size = sizes.vocab_size, tokenizer.vocab_size
  if config.model.text == 'bigru' and size == rows + 1 and tokenizer.mask == rows:
    language_model = release.variables['params']['text_encoder']['language_model']
    language_model['word_embeddings'] = np.pad(language_model['word_embeddings'], [(0, 1), (0, 0)])
    sizes.vocab_size = size
  elif size != rows:
    raise UserError(f'{source}: {size} tokens, but the word embeddings of the checkpoint have {rows} rows')
  largest = tokenizer.largest_token
  if largest >= sizes.vocab_size:
    raise UserError(f'{source}: has a token with the number {largest}, the word embeddings have {rows} rows')


def _checked(config: ml_collections.ConfigDict, release: ReleaseModel, source: str) -> dict:
  """The variables, which must have the tree and the shapes of the model that the configuration builds."""
  method = build_method(config)
  wanted = jax.eval_shape(lambda rng: init_variables(method, config, rng), jax.random.key(0))
  variables = huggingface.merge_checked(wanted, release.variables, source=source)
  broken = [
    '/'.join(path) for path, array in flax.traverse_util.flatten_dict(variables).items() if not np.isfinite(array).all()
  ]
  if broken:
    raise UserError(f'{source}: {broken[0]} has numbers that are not finite')
  return variables


def _write(
  output: pathlib.Path,
  config: ml_collections.ConfigDict,
  tokenizer: TextTokenizer,
  variables: dict,
  release: ReleaseModel,
) -> None:
  state = {'step': np.asarray(release.step, np.int64), **variables}
  metrics = None if release.rsum is None else {'rsum': release.rsum}
  with new_folder(output) as folder:
    options = ocp.CheckpointManagerOptions(best_fn=score_of, best_mode='max')
    checkpoints = checkpoint_folder(folder)
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
      manager.save(release.step, args=ocp.args.Composite(state=StateSave(state)), metrics=metrics)
    write_checksums(checkpoints / str(release.step))
    write_run(folder, config, tokenizer)
