"""`python -m hrem_jax export`: a model as three files that other programs read without our code or JAX."""

import pathlib

import flax
import numpy as np
import safetensors.numpy

from hrem_jax import configuration
from hrem_jax.retrieval.folders import new_folder
from hrem_jax.retrieval.run import CONFIG_FILE, TOKENIZER_FILE, best_step, open_run, restore_variables

WEIGHTS_FILE = 'model.safetensors'


def export(workdir: pathlib.Path, output: pathlib.Path) -> int:
  """Writes `model.safetensors`, `config.json` and `tokenizer.json` of the best checkpoint.

  Names are those of the table in docs/checkpoints.md, `/` between the levels; numbers are float32.

  Args:
    workdir: A trained or a converted one.
    output: A folder that is new or empty.

  Returns:
    The step of the checkpoint.

  Raises:
    UserError: `workdir` is none, or `output` is there already; nothing was written.
  """
  with new_folder(output) as folder:
    run, step = open_run(workdir), best_step(workdir)
    flat = flax.traverse_util.flatten_dict(restore_variables(workdir, step), sep='/')
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in flat.items()}
    # `save_file` would make a file that only its owner may read.
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors, metadata={'step': str(step)}))
    (folder / CONFIG_FILE).write_text(configuration.to_json(run.config), 'utf-8')
    (folder / TOKENIZER_FILE).write_text(run.tokenizer.to_json(), 'utf-8')
  return step
