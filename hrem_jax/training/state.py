"""Everything that changes while training, as one value."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@flax.struct.dataclass
class TrainState:
  """The state after `step` steps. Randomness is not in it: keys are derived from the seed and `step`."""

  step: Int[Array, '']
  params: dict
  collections: dict[str, Any]  # what a method keeps beside them: `batch_stats` and the like
  optimizer: Any  # optax state, see hrem_jax.training.optimizer
  skipped: Int[Array, '']  # steps so far whose update was not finite and changed nothing above but `step`
  skipped_in_a_row: Int[Array, '']  # those since the last update

  @property
  def variables(self) -> dict:
    """What `method.apply` takes."""
    return {'params': self.params, **self.collections}

  def to_tree(self) -> dict[str, Any]:
    """As checkpoints hold it: the collections stand beside the parameters (docs/checkpoints.md)."""
    tree = {name: getattr(self, name) for name in self.__dataclass_fields__}
    return tree.pop('collections') | tree

  @classmethod
  def from_tree(cls, tree: dict[str, Any]) -> 'TrainState':
    own = {name: tree[name] for name in cls.__dataclass_fields__ if name in tree}
    return cls(**own, collections={name: value for name, value in tree.items() if name not in own})


def count_parameters(params: dict) -> dict[str, int]:
  """Numbers of parameters by part."""
  return {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in params.items()}


def create_state(variables: dict, optimizer) -> TrainState:
  """The state before the first step."""
  collections = dict(variables)
  params = collections.pop('params')
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=collections,
    optimizer=optimizer.init(params),
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_a_row=jnp.zeros((), jnp.int32),
  )
