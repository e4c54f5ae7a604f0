"""The update step beside the matrix products it cannot do without, and with the graph beside without.

BERT-base, 36 regions of 2048, captions of 14 tokens on average and 40 at most, in training mode with dropout. The
products are those of all Linear layers, forward and backward, on the real tokens and regions only, as single calls of
the matrix library; attention, normalisation, losses and the optimizer are not in them.

  python benchmarks/step.py
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from measure import NUM_REGIONS, Figure, build_step, in_turns, make_batch, ratio, show

from hrem_jax.data.batch import Batch
from hrem_jax.methods.registry import default_config


def products(config: ml_collections.ConfigDict, batch: Batch) -> Iterator[tuple[int, int, int, int, bool]]:
  """Rows, inputs and outputs of each Linear layer, how many of it, and whether its input has a gradient."""
  hidden, inner = config.model.bert.hidden_size, config.model.bert.intermediate_size
  size, features, layers = config.model.embedding_size, config.model.region_size, config.model.bert.num_layers
  words, regions = int(batch.texts.mask.sum()), int(batch.images.mask.sum())
  yield words, hidden, hidden, 4 * layers, True  # query, key, value, output
  yield words, hidden, inner, layers, True
  yield words, inner, hidden, layers, True
  yield words, hidden, size, 1, True
  yield regions, features, size, 1, False
  yield regions, features, size // 2, 1, False
  yield regions, size // 2, size, 1, True
  for rows in (words, regions):
    yield rows, size, size, 6, True  # the fragment graph


@jax.jit
def forward_and_backward(x, weights):
  y = x @ weights
  return y, y @ weights.T, x.T @ y


@jax.jit
def forward_and_weights(x, weights):
  y = x @ weights
  return y, x.T @ y


class Products:
  """All products of a step, on arrays that are made once per kind of layer."""

  def __init__(self, config: ml_collections.ConfigDict, batch: Batch):
    rng = np.random.default_rng(0)
    dtype = jnp.dtype(config.model.dtype)

    def normal(rows: int, columns: int):
      return jnp.asarray(rng.standard_normal((rows, columns), np.float32), dtype)

    self._layers = [(normal(rows, ins), normal(ins, outs), *rest) for rows, ins, outs, *rest in products(config, batch)]
    graph = NUM_REGIONS * len(batch.images.mask), config.model.embedding_size
    self._regions = jnp.asarray(rng.standard_normal(graph, np.float32))
    self._words = jnp.asarray(rng.standard_normal((graph[1], int(batch.texts.mask.sum())), np.float32))
    self._product = jax.jit(jnp.matmul)

  def __call__(self, *, graph: bool) -> None:
    for x, weights, count, needs_gradient in self._layers:
      multiply = forward_and_backward if needs_gradient else forward_and_weights
      for _ in range(count):
        jax.block_until_ready(multiply(x, weights))
    if graph:
      jax.block_until_ready(self._product(self._regions, self._words))


class Step:
  """The compiled step. Steps share `state`, a list of one: two states would not fit beside each other everywhere."""

  def __init__(self, config: ml_collections.ConfigDict, batch: Batch, state: list, *, graph: bool):
    step, init = build_step(config, graph=graph)
    if not state:
      state.append(jax.jit(init)(jax.random.key(0)))
    started = time.perf_counter()
    self._compiled = step.lower(state[0], batch, np.uint32(0)).compile()
    self.compile_seconds = time.perf_counter() - started
    self.temporary_bytes = self._compiled.memory_analysis().temp_size_in_bytes
    self._batch, self._state = jax.device_put(batch), state

  def __call__(self):
    self._state[0], metrics = self._compiled(self._state[0], self._batch, np.uint32(0))
    return metrics


def compare(config: ml_collections.ConfigDict, size: int, rounds: int) -> Iterator[Figure]:
  batch, state = make_batch(config, size), []
  steps = {graph: Step(config, batch, state, graph=graph) for graph in (False, True)}
  bare = Products(config, batch)
  functions = {
    'without': steps[False],
    'products without': functools.partial(bare, graph=False),
    'with': steps[True],
    'products with': functools.partial(bare, graph=True),
  }
  times = in_turns(functions, rounds)
  median = {name: statistics.median(values) for name, values in times.items()}
  name = f'batch {size}'
  yield Figure(f'{name}: with the graph', median['with'], 's', note=f'{size / median["with"]:.1f} examples/s')
  yield Figure(f'{name}: times the step without the graph', ratio(times, 'with', 'without'), 'x', at_most=1.15)
  for graph in ('without', 'with'):
    label = f'{name}: times the products, {graph} graph'
    yield Figure(label, ratio(times, graph, f'products {graph}'), 'x', at_most=1.7, note=f'{median[graph]:.2f} s')
  words, places = int(batch.texts.mask.sum()), batch.texts.tokens.size
  yield Figure(f'{name}: places in rows per real word', places / words, 'x')
  yield Figure(f'{name}: memory besides state and batch', steps[True].temporary_bytes / 1e9, 'GB')
  yield Figure(f'{name}: compilation', steps[True].compile_seconds, 's', note='short where it comes from the cache')


def savings(config: ml_collections.ConfigDict, size: int, rounds: int) -> Iterator[Figure]:
  """What `model.parts` and `model.remat` save, and cost."""
  whole, state = None, []
  for changes in ({}, {'parts': 4}, {'parts': 16}, {'remat': True}):
    name = ', '.join(f'{key}={value}' for key, value in changes.items()) or 'as it is'
    changed = config.copy_and_resolve_references()
    changed.model.update(changes)
    step = Step(changed, make_batch(changed, size, num_groups=changed.model.parts), state, graph=True)
    lasted = statistics.median(in_turns({name: step}, rounds)[name])
    whole = whole or (step.temporary_bytes, lasted)
    memory = f'{step.temporary_bytes / 1e9:.2f} GB besides state and batch'
    yield Figure(f'batch {size}, {name}: memory', step.temporary_bytes / whole[0], 'x', note=memory)
    yield Figure(f'batch {size}, {name}: time', lasted / whole[1], 'x', note=f'{lasted:.2f} s')


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch-sizes', type=int, nargs='*', default=[128])
  parser.add_argument('--savings', type=int, nargs='*', default=[64], help='batch sizes for model.parts and remat')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--dtype', default='float32', help='config.model.dtype: what the encoders compute in')
  arguments = parser.parse_args()
  config = default_config()
  config.model.dtype = arguments.dtype
  compared = (row for size in arguments.batch_sizes for row in compare(config, size, arguments.rounds))
  saved = (row for size in arguments.savings for row in savings(config, size, 1))
  show('step', itertools.chain(compared, saved))


if __name__ == '__main__':
  main()
