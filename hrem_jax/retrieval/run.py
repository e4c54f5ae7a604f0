"""A trained run on disk: its configuration, vocabulary and checkpoints (docs/checkpoints.md)."""

import dataclasses
import math
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from hrem_jax import configuration
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.precomputed import Split
from hrem_jax.data.sources import open_split
from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.errors import UserError, one_line, shown
from hrem_jax.files import read_json_object, read_text, write_text
from hrem_jax.methods.method import Method
from hrem_jax.methods.registry import build_method, from_json
from hrem_jax.retrieval.checkpoint_folder import CHECKPOINTS, checkpoint_folder
from hrem_jax.retrieval.checksums import CHECKSUMS, verify, verify_file, write_checksums
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
