"""A trained run on disk: its configuration, vocabulary and checkpoints (docs/checkpoints.md)."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Float

from hrem_jax import configuration
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.precomputed import Split
from hrem_jax.data.sources import open_split
from hrem_jax.data.token_cache import cache_folder, cached_tokens
from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions
from hrem_jax.errors import UserError, one_line, shown
from hrem_jax.files import read_json_object, read_text, write_text
from hrem_jax.methods.method import Method
from hrem_jax.methods.registry import build_method, from_json
from hrem_jax.retrieval.checkpoint_folder import CHECKPOINTS, checkpoint_folder
from hrem_jax.retrieval.checksums import CHECKSUMS, verify, verify_file, write_checksums
from hrem_jax.retrieval.encode import DataEncoder
from hrem_jax.retrieval.scores import DotScores, Scores
from hrem_jax.retrieval.split_protocols import evaluate_split, recall_only
from hrem_jax.sharding import data_mesh, replicate

CONFIG_FILE, TOKENIZER_FILE = 'config.json', 'tokenizer.json'
RUN_FILES = CONFIG_FILE, TOKENIZER_FILE
METRICS = 'metrics'  # Orbax's name of a checkpoint's scores, and of the file in the folder of this name
OF_TRAINING = ('step', 'optimizer', 'skipped', 'skipped_in_a_row')  # in a checkpoint, beside variables


@dataclasses.dataclass(frozen=True)
class Run:
  """What a workdir says before any weight is read."""

  config: ml_collections.ConfigDict
  tokenizer: TextTokenizer
  method: Method


def open_run(workdir: pathlib.Path) -> Run:
  """Reads the configuration and the vocabulary.

  Raises:
    UserError: `workdir` is not one that training wrote.
  """
  for name in RUN_FILES:
    if not (workdir / name).is_file():
      raise UserError(f'{workdir / name}: no such file; expected is a workdir that --mode=train has written')
    verify_file(workdir, name, mended=f'; if it was changed on purpose, remove {workdir / CHECKSUMS}')
  config = from_json(read_text(workdir / CONFIG_FILE), source=str(workdir / CONFIG_FILE))
  for key in ('embedding_size', 'region_size'):  # whoever wrote it knew them
    if not config.model[key]:
      raise UserError(f'{workdir / CONFIG_FILE}: config.model.{key} is 0, expected positive')
  tokenizer = tokenizers.from_json(read_text(workdir / TOKENIZER_FILE), source=str(workdir / TOKENIZER_FILE))
  return Run(config, tokenizer, build_method(config))


def write_run(workdir: pathlib.Path, config: ml_collections.ConfigDict, tokenizer: TextTokenizer) -> None:
  """Writes what decides what numbers mean, and its checksums; `open_run` reads it."""
  files = {TOKENIZER_FILE: tokenizer.to_json(), CONFIG_FILE: configuration.to_json(config)}
  # A start that is killed in between leaves files without checksums, never checksums of other files.
  if (workdir / CHECKSUMS).is_file():
    (workdir / CHECKSUMS).unlink()
  for name, content in files.items():
    write_text(workdir / name, content)
  write_checksums(workdir, RUN_FILES)


def score_of(metrics: dict) -> float:
  """What ranks checkpoints: rSum on the selection split."""
  return metrics['rsum']


def step_folders(folder: pathlib.Path) -> list[int]:
  """The steps of the checkpoints in a folder, whole or not."""
  return sorted(int(path.name) for path in folder.glob('*') if path.is_dir() and path.name.isdecimal())


def check_scores(checkpoint: pathlib.Path) -> None:
  """Raises UserError where a checkpoint was evaluated and its score is gone, changed, or no number to compare."""
  verify_file(checkpoint, f'{METRICS}/{METRICS}')
  path = checkpoint / METRICS / METRICS
  if not path.parent.is_dir():
    return
  score = read_json_object(path).get('rsum')
  if type(score) not in (int, float) or not abs(score) < math.inf:  # NaN is not smaller
    raise UserError(f'{path}: expected JSON with the rsum of the selection split, a number, found {shown(score)}')


def best_step(workdir: pathlib.Path) -> int:
  """The step of the checkpoint with the highest rSum on the selection split; the newest if none was evaluated.

  Raises:
    UserError: There is no checkpoint, or the score of one cannot be read: it may be the best.
  """
  # Nothing is saved, so nothing is written; Orbax's own `read_only` warns of itself on every use.
  options = ocp.CheckpointManagerOptions(best_fn=score_of, best_mode='max', create=False)
  folder = checkpoint_folder(workdir)
  step = None
  for found in step_folders(folder):
    check_scores(folder / str(found))
  if folder.is_dir():
    with ocp.CheckpointManager(folder, options=options) as manager:
      step = manager.best_step()
      step = manager.latest_step() if step is None else step
  if step is None:
    raise UserError(f'{folder}: no checkpoint there')
  return step


def restore_variables(workdir: pathlib.Path, step: int) -> dict:
  """What `method.apply` takes, of a checkpoint, as host arrays: without what only training needs.

  Raises:
    UserError: The checkpoint is not there or damaged. What is the best is not for us to say then.
  """
  verify(checkpoint_folder(workdir) / str(step))
  variables = _restore(workdir, step, lambda name: name not in OF_TRAINING)
  if 'params' not in variables:
    raise UserError(f'{checkpoint_folder(workdir) / str(step)}: not a whole checkpoint: there are no params in it')
  return variables


def skipped_updates(workdir: pathlib.Path, step: int) -> int:
  """How many of the updates up to a checkpoint were skipped; 0 where it does not say, as a converted one."""
  return int(_restore(workdir, step, lambda name: name == 'skipped').get('skipped', 0))


def _restore(workdir: pathlib.Path, step: int, is_wanted: Callable[[str], bool]) -> dict:
  """The parts of a state whose names are wanted."""
  folder = checkpoint_folder(workdir) / str(step) / 'state'
  with ocp.PyTreeCheckpointer() as checkpointer:
    try:
      # The handler's: the checkpointer's own looks for a file of the whole step in this folder of one item, and warns.
      tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
      wanted = {name: value for name, value in tree.items() if is_wanted(name)}
      if not wanted:
        return {}
      # As NumPy arrays: whatever devices wrote them.
      as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      restore = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
      return checkpointer.restore(folder, args=restore)
    except Exception as error:  # Orbax raises all kinds, bare `Exception` among them
      raise UserError(f'{folder}: not a whole checkpoint: {one_line(error)[:400]}') from error


class Evaluator:
  """Splits of a data set through the encoders to a flat dictionary of metrics (METHOD section 6)."""

  def __init__(self, run: Run, mesh: Mesh):
    self._run = run
    self.encoder = DataEncoder(run.method, mesh, chunk_size=run.config.evaluation.batch_size)

  def embed(self, variables: dict, split: Split):
    """Embeddings of the images `[i, d]` and of the captions `[t, d]`.

    Raises:
      UserError: One is not finite: a model that broke must not get a recall.
    """
    tokenize = functools.partial(cached_tokens, folder=cache_folder(self._run.config.data.cache))
    images = self.encoder.encode_images(variables, split.features)
    texts = self.embed_texts(variables, split.captions, tokenize)
    for what, embeddings in (('images', images), ('captions', texts)):
      is_broken = ~np.isfinite(embeddings).all(axis=1)
      if is_broken.any():
        raise UserError(
          f'split {split.name}: NaN or infinite embeddings of {is_broken.sum()} of {len(embeddings)} {what}, the first '
          f'at position {is_broken.argmax()}; expected are a model that has not diverged and finite features'
        )
    return images, texts

  def embed_texts(
    self,
    variables: dict,
    texts: Sequence[str],
    tokenize: Callable[[list[str], TextTokenizer], TokenizedCaptions],
    *,
    few_widths: bool = False,
  ) -> Float[np.ndarray, 't d']:
    """Embeddings of sentences, of which there is at least one, in their order.

    Equal ones are encoded once: their embeddings must be equal to the last bit, or a tie is decided by rounding. With
    `few_widths` they are padded to `config.data.length_buckets`, so that single ones need no more programs than that.
    """
    unique, where = np.unique(np.asarray(texts, object), return_inverse=True)
    buckets, tokenizer = tuple(self._run.config.data.length_buckets), self._run.tokenizer
    tokenized, widths = tokenize(unique.tolist(), tokenizer), buckets if few_widths else None
    return self.encoder.encode_texts(variables, tokenized, tokenizer, buckets[-1], widths)[where]

  def scores(self, variables: dict, split: Split) -> Scores:
    """Of all images of a split with all of its captions; errors as of `embed`."""
    return DotScores(*self.embed(variables, split))

  def evaluate(self, variables: dict, split: Split, *, protocol: str) -> dict[str, float]:
    """Recall metrics of a split by `protocol`, whatever else the configuration asks of the test split."""
    return evaluate_split(self.scores(variables, split), split, recall_only(self._run.config, protocol))


def load_best(workdir: pathlib.Path, *, step: int | None = None) -> tuple[Run, dict, int, Mesh]:
  """The run, the variables of its best checkpoint (or that of `step`) on all devices, its step, and the mesh.

  Raises:
    UserError: There is no such run or checkpoint, or it is damaged.
  """
  run, mesh = open_run(workdir), data_mesh()
  if step is None:
    step = best_step(workdir)
  elif step not in (kept := step_folders(workdir / CHECKPOINTS)):
    raise UserError(
      f'{workdir}: no checkpoint of step {step}, there are {", ".join(map(str, kept)) or "none"}; an index that was '
      'made with one that is gone has to be made anew: `encode` into another --index'
    )
  return run, replicate(restore_variables(workdir, step), mesh), step, mesh


def load_test_split(config: ml_collections.ConfigDict) -> Split:
  return open_split(config.data, config.evaluation.test_split)
