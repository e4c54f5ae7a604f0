"""One update: batch and state in, state and metrics out."""

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh
from jaxtyping import Array, Int

from hrem_jax.data.batch import Batch
from hrem_jax.models.hrem import HREM
from hrem_jax.sharding import replicated, split_rows
from hrem_jax.training.guard import all_finite, choose
from hrem_jax.training.objective import loss_terms, total_loss
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import TrainState


def train_step(
  state: TrainState,
  batch: Batch,
  seed: Int[Array, ''] | int,
  *,
  model: HREM,
  optimizer: Optimizer,
  loss: ml_collections.ConfigDict,
  graph_active: bool,
  sample_negatives: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step of gradient descent on the objective of the global batch.

  Where the loss, the gradient, an embedding or the new BatchNorm statistics are not finite, nothing but `step` and the
  counts of such steps changes: the next batch and the next random numbers may do better.

  Args:
    state: Replicated.
    batch: The global batch.
    seed: All randomness is `fold_in(key(seed), step)`. Not static: trainings that differ in it are one program.
    model, optimizer: What to apply.
    loss: The section `loss` of the configuration.
    graph_active: Static: before the warm-up's end the graph costs nothing.
    sample_negatives: False takes each anchor's most likely negative: for tests and comparisons.

  Returns:
    The next state, and scalars: `loss`, `loss/TERM`, `gradient_norm`, `learning_rate`, `anchors_without_negatives`,
    `skipped`, `skipped_in_a_row`.
  """
  dropout_rng, negatives_rng = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))

  def objective(params):
    outputs, updated = model.apply(
      {'params': optimizer.freeze(params), 'batch_stats': state.batch_stats},
      batch.regions,
      batch.region_mask,
      batch.tokens,
      batch.word_mask,
      graph_active=graph_active,
      packing=batch.packing,
      embeddings=batch.embeddings,
      train=True,
      rngs={'dropout': dropout_rng},
      mutable=['batch_stats'],
    )
    terms, without_negatives = loss_terms(outputs, batch.image_ids, negatives_rng if sample_negatives else None, loss)
    # Not only the loss: a NaN is no one's negative, and without negatives the loss is 0.
    embeddings = outputs.images.embedding, outputs.texts.embedding, outputs.enhanced_images, outputs.enhanced_texts
    is_finite = all_finite((embeddings, updated['batch_stats']))
    return total_loss(terms, loss), (terms, without_negatives, updated['batch_stats'], is_finite)

  (total, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
  terms, without_negatives, batch_stats, is_finite = aux
  params, optimizer_state, metrics = optimizer.update(
    grads, state.optimizer, state.params, state.step, graph_active=graph_active
  )
  metrics |= {'loss': total, 'anchors_without_negatives': without_negatives}
  metrics |= {f'loss/{name}': value for name, value in terms.items()}
  is_finite &= all_finite((total, metrics['gradient_norm']))
  params, batch_stats, optimizer_state = choose(
    is_finite, (params, batch_stats, optimizer_state), (state.params, state.batch_stats, state.optimizer)
  )
  counts = {
    'skipped': state.skipped + ~is_finite,
    'skipped_in_a_row': jnp.where(is_finite, 0, state.skipped_in_a_row + 1),
  }
  return TrainState(state.step + 1, params, batch_stats, optimizer_state, **counts), metrics | counts


def jit_train_step(mesh: Mesh, **static):
  """`train_step` with its options bound: the batch split over the mesh, the state replicated and donated."""
  return jax.jit(
    lambda state, batch, seed: train_step(state, batch, seed, **static),
    in_shardings=(replicated(mesh), split_rows(mesh), replicated(mesh)),
    out_shardings=replicated(mesh),
    donate_argnums=0,
  )
