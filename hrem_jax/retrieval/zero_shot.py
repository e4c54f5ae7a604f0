"""What a run was before its training, where it began as pretrained towers are."""

import jax
import numpy as np
from jax.sharding import Mesh

from hrem_jax.errors import UserError, say
from hrem_jax.ports.pretrained import read_towers
from hrem_jax.retrieval.run import Run
from hrem_jax.sharding import replicate


def zero_shot_variables(run: Run, variables: dict, mesh: Mesh) -> dict | None:
  """The variables with which a run of `config.model.start='zero_shot'` embeds as its pretrained towers do.

  Args:
    run: Of the configuration.
    variables: Of a checkpoint, on all devices of `mesh`. Towers that were frozen are in them; those that were trained
      are read from their folders again.

  Returns:
    None, and a word about it, where such a folder is not there any more.
  """
  model, optimizer, params = run.config.model, run.config.optimizer, dict(variables['params'])
  is_trained = {
    'image_encoder': model.image == 'tower' and optimizer.image_tower_lr_factor > 0,
    'text_encoder': optimizer.language_model_lr_factor > 0,
  }
  try:
    shapes = jax.eval_shape(lambda: {encoder: params[encoder] for encoder, trained in is_trained.items() if trained})
    towers = read_towers(model, shapes)
  except UserError as error:
    say(f'what the towers are without training is not shown: {error}')
    return None
  gain = replicate({'gain': np.zeros((), np.float32)}, mesh)
  for encoder in is_trained:
    params[encoder] = {**params[encoder], **replicate(towers.get(encoder, {}), mesh), 'residual': gain}
  return {**variables, 'params': params}
