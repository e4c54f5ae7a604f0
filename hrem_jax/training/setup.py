"""From a configuration to everything that the loop needs: data, vocabulary, model, first state."""

import dataclasses
import pathlib
import sys
from collections.abc import Hashable

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from hrem_jax import configuration
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.pipeline import TrainingBatches
from hrem_jax.data.precomputed import Split, data_folder
from hrem_jax.data.provenance import check_same_data, write_provenance
from hrem_jax.data.sources import open_split
from hrem_jax.data.token_cache import cache_folder, cached_tokens
from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.data.vocabularies import read_scan_vocabulary, read_word_vectors
from hrem_jax.distributed import check_shared
from hrem_jax.errors import UserError
from hrem_jax.methods.method import Method
from hrem_jax.methods.registry import build_method, init_variables, validate
from hrem_jax.paths import local_path
from hrem_jax.ports import huggingface
from hrem_jax.ports.pretrained import fill_in_towers, read_towers
from hrem_jax.retrieval.checkpoint_folder import CHECKPOINTS
from hrem_jax.retrieval.run import CONFIG_FILE, Run, open_run, step_folders, write_run
from hrem_jax.retrieval.split_protocols import check_split
from hrem_jax.sharding import replicate, replicated
from hrem_jax.training.encoder_check import check_encoder
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import TrainState, create_state


@dataclasses.dataclass(frozen=True)
class Setup:
  """A run that can start."""

  run: Run
  train: Split
  batches: TrainingBatches
  selection: Split  # its rSum chooses the checkpoint
  optimizer: Optimizer

  @property
  def num_steps(self) -> int:
    return self.batches.sampler.steps_per_epoch * self.run.config.training.num_epochs

  def phase(self, step: int) -> Hashable:
    """That of the update after `step` updates."""
    return self.run.method.phase(step, self.batches.sampler.steps_per_epoch)


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Setup:
  """Checks everything that can be wrong and writes configuration and vocabulary to the workdir.

  Raises:
    UserError: Something is wrong; nothing was written.
  """
  setup = plan(config, workdir)
  # A data set and what `convert-data` makes of it give the same batches; only the former tells where it is from.
  provenance = check_same_data(workdir, data_folder(config.data)) if config.data.source == 'precomputed' else None
  if jax.process_index() == 0:
    if provenance is not None:
      write_provenance(workdir, provenance)
    write_run(workdir, setup.run.config, setup.run.tokenizer)
  check_shared(workdir / CONFIG_FILE)
  return setup


def plan(config: ml_collections.ConfigDict, workdir: pathlib.Path | None = None) -> Setup:
  """The run that `config` describes, checked, the cheapest first; nothing is written.

  Args:
    config: As the user gave it; not changed.
    workdir: Where it may have been started before; None: it is a new one.

  Raises:
    UserError: Something is wrong.
  """
  validate(config, num_devices=jax.device_count())
  check_encoder(config)  # other sizes have this cause
  train, selection, test = open_splits(config)
  check_split(test, config)  # what the last minute of a training must not find out
  started = _started(workdir) if workdir else None
  run = _open_or_create(config, workdir, train, started)
  for split in (train, selection, test):
    split.check_inputs(run.config.model)
  tokenized = cached_tokens(train.captions, run.tokenizer, folder=cache_folder(config.data.cache))
  batches = TrainingBatches(
    train,
    tokenized,
    run.tokenizer,
    run.config,
    wants=run.method.wants,
    process=(jax.process_index(), jax.process_count()),
    num_devices=jax.device_count(),
  )
  optimizer = make_optimizer(run.method, run.config, batches.sampler.steps_per_epoch)
  if started is None:
    _check_pretrained(run)
  return Setup(run, train, batches, selection, optimizer)


def open_splits(config: ml_collections.ConfigDict) -> list[Split]:
  """The splits that a training reads: for training, selection and test; all with features of one size."""
  names = 'train', config.evaluation.select_on, config.evaluation.test_split
  splits = [open_split(config.data, name) for name in names]
  size, wanted = config.model.region_size, 'expected config.model.region_size='
  for split in splits:
    split.check_region_size(size or splits[0].features.region_size, wanted if size else 'that of training has ')
  return splits


def _started(workdir: pathlib.Path) -> Run | None:
  """The run of a workdir, where it was started before."""
  if (workdir / CONFIG_FILE).is_file():
    return open_run(workdir)
  if steps := step_folders(workdir / CHECKPOINTS):
    raise UserError(
      f'{workdir / CONFIG_FILE}: no such file, but {workdir / CHECKPOINTS} has {len(steps)} checkpoint(s), which '
      'only the run that wrote them can go on from; take another --workdir'
    )
  return None


def _open_or_create(
  config: ml_collections.ConfigDict, workdir: pathlib.Path | None, train: Split, started: Run | None
) -> Run:
  """The run that goes on, or a new one."""
  resolved, tokenizer = resolve(config, train, started and started.tokenizer)
  changed = configuration.differences(started.config, resolved) if started else []
  if changed:
    raise UserError(
      f'{workdir}: was started with another configuration ({"; ".join(changed)}); '
      'take another --workdir or the old values'
    )
  return Run(resolved, tokenizer, build_method(resolved))


def resolve(
  config: ml_collections.ConfigDict, train: Split, tokenizer: TextTokenizer | None = None
) -> tuple[ml_collections.ConfigDict, TextTokenizer]:
  """Fills in what files decide: the sizes of features, of BERT and of towers, and the vocabulary's.

  Args:
    config: As the user gave it; not changed.
    train: The training split; its captions are for a vocabulary of our own.
    tokenizer: That of an earlier start.
  """
  config = config.copy_and_resolve_references()
  config.model.region_size = config.model.region_size or train.features.region_size
  tokenizer = fill_in_towers(config, tokenizer)
  validate(config)  # sizes that were 0, and towers as their folders have them
  if config.model.text == 'tower':
    return config, tokenizer
  if config.model.text == 'bert' and config.model.weights:
    folder = huggingface.find_folder(config.model.weights)
    config.model.bert.update(huggingface.bert_sizes(folder))
    tokenizer = tokenizer or tokenizers.read_wordpiece(folder)
    if tokenizer.largest_token >= config.model.bert.vocab_size:
      raise UserError(
        f'{folder}: a token has the number {tokenizer.largest_token}, expected below the vocab_size of its '
        f'config.json, {config.model.bert.vocab_size}'
      )
  else:
    if tokenizer is None and config.model.vocabulary:
      tokenizer = read_scan_vocabulary(local_path(config.model.vocabulary))
    tokenizer = tokenizer or tokenizers.build_vocabulary(train.captions, min_count=config.data.min_word_count)
    config.model[config.model.text].vocab_size = tokenizer.vocab_size
  return config, tokenizer


def _check_pretrained(run: Run) -> None:
  """Files that do not fit are named before anything is written; they are read once more when it begins."""
  config = run.config
  if config.model.weights or config.model.image_weights:
    _read_weights(config, _shapes(run)['params'])
  if config.model.word_vectors:
    words = run.tokenizer.pieces(range(run.tokenizer.vocab_size))
    read_word_vectors(local_path(config.model.word_vectors), words, config.model.bigru.word_size)


def _read_weights(config: ml_collections.ConfigDict, params: dict) -> dict:
  """`params` (or their shapes) with pretrained ones in their place, which must have their names and shapes."""
  pretrained = read_towers(config.model, params)
  if config.model.text == 'bert' and config.model.weights:
    folder = huggingface.find_folder(config.model.weights)
    bert = huggingface.read_bert(folder, num_layers=config.model.bert.num_layers)
    ours = params['text_encoder']['language_model']
    pretrained['text_encoder'] = {'language_model': huggingface.merge_checked(ours, bert, source=str(folder))}
  return {part: {**tree, **pretrained.get(part, {})} for part, tree in params.items()}


def _shapes(run: Run) -> dict:
  """Of the variables that a training begins with."""
  return jax.eval_shape(lambda rng: init_variables(run.method, run.config, rng), jax.random.key(0))


def make_optimizer(method: Method, config: ml_collections.ConfigDict, steps_per_epoch: int) -> Optimizer:
  """The optimizer of a training of `config.training.num_epochs`."""
  num_steps = steps_per_epoch * config.training.num_epochs
  return Optimizer(config.optimizer, tuple(method.groups(config)), steps_per_epoch, num_steps)


def state_shapes(setup: Setup, mesh: Mesh) -> TrainState:
  """The state of a training without its numbers: on all devices, for a checkpoint to be restored into."""
  shapes = jax.eval_shape(lambda variables: create_state(variables, setup.optimizer), _shapes(setup.run))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), shapes)


def first_state(setup: Setup, mesh: Mesh) -> TrainState:
  """Random parameters from the seed, pretrained ones in their place, on all devices."""
  config = setup.run.config
  rng = jax.random.key(config.training.seed)
  variables = jax.device_get(init_variables(setup.run.method, config, rng))
  variables['params'] = _read_weights(config, variables['params'])
  if config.model.word_vectors:
    language_model = variables['params']['text_encoder']['language_model']
    language_model['word_embeddings'] = with_word_vectors(
      language_model['word_embeddings'], setup.run.tokenizer, local_path(config.model.word_vectors)
    )
  return replicate(create_state(variables, setup.optimizer), mesh)


def with_word_vectors(
  embeddings: Float[np.ndarray, 'v f'], tokenizer: TextTokenizer, path: pathlib.Path
) -> Float[np.ndarray, 'v f']:
  """The vectors of a file in place of random ones, for the words of the vocabulary that are there; says how many."""
  num_words, size = embeddings.shape
  found, vectors = read_word_vectors(path, tokenizer.pieces(range(num_words)), size)
  embeddings = np.array(embeddings)
  embeddings[found] = vectors
  if jax.process_index() == 0:
    print(f'{path}: vectors for {len(found):,} of {num_words:,} words of the vocabulary', file=sys.stderr, flush=True)
  return embeddings
