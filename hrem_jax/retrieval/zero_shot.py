"""What a run was before its training, where it began as pretrained towers are."""

import jax
import numpy as np
from jax.sharding import Mesh

from hrem_jax.retrieval.pretrained import read_towers
from hrem_jax.retrieval.run import Run
from hrem_jax.sharding import replicate

ENCODERS = ('image_encoder', 'text_encoder')


def zero_shot_variables(run: Run, variables: dict, mesh: Mesh) -> dict:
  """The variables with which a run of `config.model.start='zero_shot'` embeds as its pretrained towers do.

  Args:
    run: Of the configuration.
    variables: Of a checkpoint, on all devices of `mesh`. Towers that were not trained are in them; the others are read
      from their folders again.

  Raises:
    UserError: Such a folder is not there any more.
  """
  params, optimizer = dict(variables['params']), run.config.optimizer
  gain = replicate({'gain': np.zeros((), np.float32)}, mesh)
  for encoder in ENCODERS:
    params[encoder] = {**params[encoder], 'residual': gain}
  trained = {
    'image_encoder': run.config.model.image == 'tower' and optimizer.image_tower_lr_factor > 0,
    'text_encoder': optimizer.language_model_lr_factor > 0,
  }
  shapes = jax.eval_shape(lambda tree: tree, params)
  for encoder, towers in read_towers(run.config.model, shapes).items():
    if trained[encoder]:
      params[encoder] = {**params[encoder], **replicate(towers, mesh)}
  return {**variables, 'params': params}
