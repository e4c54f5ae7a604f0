"""One update: batch and state in, state and metrics out."""

from collections.abc import Hashable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from hrem_jax.data.batch import Batch
from hrem_jax.methods.method import Method
from hrem_jax.sharding import replicated, split_rows
from hrem_jax.training.guard import all_finite, choose
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import TrainState


def train_step(
  state: TrainState,
  batch: Batch,
  seed: Int[Array, ''] | int,
  *,
  method: Method,
  optimizer: Optimizer,
  phase: Hashable,
  active: tuple[str, ...],
  sample_negatives: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step of gradient descent on the objective of the global batch.

  Where the loss, the gradient, what the method watches or what it keeps beside its parameters is not finite, nothing
  but `step` and the counts of such steps changes: the next batch and the next random numbers may do better.

  Args:
    state: Replicated.
    batch: The global batch.
    seed: All randomness is `fold_in(key(seed), step)`. Not static: trainings that differ in it are one program.
    method, optimizer: What to apply.
    phase: Static, of the method: what is not part of it costs nothing.
    active: Static, of the optimizer: the groups of parameters that are updated.
    sample_negatives: False takes each anchor's most likely negative: for tests and comparisons.

  Returns:
    The next state, and scalars: `loss`, `loss/TERM`, `gradient_norm`, `learning_rate`, the counts of the method,
    `skipped`, `skipped_in_a_row`.
  """
  dropout, negatives = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
  rngs = {'dropout': dropout} | ({'negatives': negatives} if sample_negatives else {})

  def objective(params):
    losses, collections = method.apply(
      {'params': optimizer.freeze(params), **state.collections},
      batch,
      phase=phase,
      rngs=rngs,
      mutable=list(state.collections),
      method='losses',
    )
    total = sum(losses.weights[name] * value for name, value in losses.terms.items())
    return total, (losses.terms, losses.counts, dict(collections), all_finite((losses.watched, collections)))

  (total, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
  terms, method_counts, collections, is_finite = aux
  params, optimizer_state, metrics = optimizer.update(grads, state.optimizer, state.params, state.step, active=active)
  metrics |= {'loss': total, **method_counts}
  metrics |= {f'loss/{name}': value for name, value in terms.items()}
  is_finite &= all_finite((total, metrics['gradient_norm']))
  params, collections, optimizer_state = choose(
    is_finite, (params, collections, optimizer_state), (state.params, state.collections, state.optimizer)
  )
  counts = {
    'skipped': state.skipped + ~is_finite,
    'skipped_in_a_row': jnp.where(is_finite, 0, state.skipped_in_a_row + 1),
  }
  return TrainState(state.step + 1, params, collections, optimizer_state, **counts), metrics | counts


def jit_train_step(mesh: Mesh, **static):
  """`train_step` with its options bound: the batch split over the mesh, the state replicated and donated."""
  return jax.jit(
    lambda state, batch, seed: train_step(state, batch, seed, **static),
    in_shardings=(replicated(mesh), split_rows(mesh), replicated(mesh)),
    out_shardings=replicated(mesh),
    donate_argnums=0,
  )
