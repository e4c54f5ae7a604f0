"""From a configuration to everything that the loop needs: data, vocabulary, model, first state."""

import dataclasses
import pathlib
import sys

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from hrem_jax import configuration
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.pipeline import TrainingBatches
from hrem_jax.data.precomputed import Split
from hrem_jax.data.sources import open_split
from hrem_jax.data.token_cache import cache_folder, cached_tokens
from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.data.vocabularies import read_scan_vocabulary, read_word_vectors
from hrem_jax.distributed import check_shared
from hrem_jax.errors import UserError
from hrem_jax.files import write_text
from hrem_jax.models.hrem import build_model, init_variables
from hrem_jax.ports import huggingface
from hrem_jax.retrieval.run import CONFIG_FILE, TOKENIZER_FILE, Run, open_run
from hrem_jax.sharding import replicate
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


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Setup:
  """Checks everything that can be wrong, cheapest first, and writes configuration and vocabulary to the workdir.

  Raises:
    UserError: Something is wrong; nothing was written.
  """
  configuration.validate(config, num_devices=jax.device_count())
  train, selection, _ = open_splits(config)
  run = _open_or_create(config, workdir, train)
  tokenized = cached_tokens(train.captions, run.tokenizer, folder=cache_folder(config.data.cache))
  batches = TrainingBatches(
    train,
    tokenized,
    run.tokenizer,
    run.config,
    process=(jax.process_index(), jax.process_count()),
    num_devices=jax.device_count(),
  )
  optimizer = Optimizer(run.config.optimizer, batches.sampler.steps_per_epoch)
  return Setup(run, train, batches, selection, optimizer)


def open_splits(config: ml_collections.ConfigDict) -> list[Split]:
  """The splits that a training reads: for training, selection and test; all have features of the configured size."""
  names = 'train', config.evaluation.select_on, config.evaluation.test_split
  splits = [open_split(config.data, name) for name in names]
  for split in splits:
    split.check_region_size(config.model.region_size, 'expected config.model.region_size=')
  return splits


def _open_or_create(config: ml_collections.ConfigDict, workdir: pathlib.Path, train: Split) -> Run:
  """The run of a workdir that was started before, or a new one."""
  started = open_run(workdir) if (workdir / CONFIG_FILE).is_file() else None
  resolved, tokenizer = resolve(config, train.captions, started and started.tokenizer)
  changed = configuration.differences(started.config, resolved) if started else []
  if changed:
    raise UserError(
      f'{workdir}: was started with another configuration ({"; ".join(changed)}); '
      'take another --workdir or the old values'
    )
  if jax.process_index() == 0:
    write_text(workdir / TOKENIZER_FILE, tokenizer.to_json())
    write_text(workdir / CONFIG_FILE, configuration.to_json(resolved))
  check_shared(workdir / CONFIG_FILE)
  return Run(resolved, tokenizer, build_model(resolved.model))


def resolve(
  config: ml_collections.ConfigDict, captions: list[str], tokenizer: TextTokenizer | None = None
) -> tuple[ml_collections.ConfigDict, TextTokenizer]:
  """Fills in what files decide: BERT's sizes from its folder, the vocabulary's size.

  Args:
    config: As the user gave it; not changed.
    captions: Of the training split, for a vocabulary of our own.
    tokenizer: That of an earlier start.
  """
  config = config.copy_and_resolve_references()
  if config.model.text == 'bert' and config.model.weights:
    folder = huggingface.find_folder(config.model.weights)
    config.model.bert.update(huggingface.bert_sizes(folder))
    tokenizer = tokenizer or tokenizers.read_wordpiece(folder)
    if tokenizer.vocab_size > config.model.bert.vocab_size:
      raise UserError(f'{folder}: {tokenizer.vocab_size} tokens, but vocab_size is {config.model.bert.vocab_size}')
  else:
    if tokenizer is None and config.model.vocabulary:
      tokenizer = read_scan_vocabulary(pathlib.Path(config.model.vocabulary).expanduser())
    tokenizer = tokenizer or tokenizers.build_vocabulary(captions, min_count=config.data.min_word_count)
    config.model[config.model.text].vocab_size = tokenizer.vocab_size
  return config, tokenizer


def first_state(setup: Setup, mesh: Mesh) -> TrainState:
  """Random parameters from the seed, the pretrained language model's in their place, on all devices."""
  config = setup.run.config
  init = jax.jit(lambda rng: init_variables(setup.run.model, rng, region_size=config.model.region_size))
  variables = jax.device_get(init(jax.random.key(config.training.seed)))
  if config.model.text == 'bert' and config.model.weights:
    folder = huggingface.find_folder(config.model.weights)
    pretrained = huggingface.read_bert(folder, num_layers=config.model.bert.num_layers)
    text_encoder = variables['params']['text_encoder']
    text_encoder['language_model'] = huggingface.merge_checked(
      text_encoder['language_model'], pretrained, source=str(folder)
    )
  if config.model.word_vectors:
    language_model = variables['params']['text_encoder']['language_model']
    language_model['word_embeddings'] = with_word_vectors(
      language_model['word_embeddings'], setup.run.tokenizer, pathlib.Path(config.model.word_vectors).expanduser()
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
