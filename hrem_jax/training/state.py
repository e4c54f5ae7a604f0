"""Everything that changes while training, as one value."""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@flax.struct.dataclass
class TrainState:
  """The state after `step` steps. Randomness is not in it: keys are derived from the seed and `step`."""

  step: Int[Array, '']
  params: dict  # image_encoder, text_encoder and, with an instance level, association and interaction
  batch_stats: dict  # running statistics of the image encoder's BatchNorm
  optimizer: dict  # optax state of each parameter group, see hrem_jax.training.optimizer
  skipped: Int[Array, '']  # steps so far whose update was not finite and changed nothing above but `step`
  skipped_in_a_row: Int[Array, '']  # those since the last update

  @property
  def variables(self) -> dict:
    """What `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def count_parameters(params: dict) -> dict[str, int]:
  """Numbers of parameters by part."""
  return {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in params.items()}


def create_state(variables: dict, optimizer) -> TrainState:
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    optimizer=optimizer.init(variables['params']),
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_a_row=jnp.zeros((), jnp.int32),
  )
