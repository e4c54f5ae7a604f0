"""Cross-modal attention beside the matrix products that it needs, and beside PyTorch as SCAN's public program works.

Fragments of size 1024: 36 regions an image, 14 words a text on average, 40 at most. "Needed" are the products of all
regions with all real words, and of each image's Gram matrix with the weights; of a training step four times as many
(backward, and each block computed again). The program goes through the texts one by one, cuts each to its words, and
computes every context; PyTorch runs in the same process, in turns, and only where it is installed.

  python benchmarks/cross_attention.py --pairs 200x1000 1000x5000

Beside the products, seconds are those of the processor (all threads): on a busy machine the clock measures others.
Beside PyTorch they are those of the clock, since its threads spin while they wait for each other.
"""

import argparse
import functools
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from measure import MAX_WORDS, NUM_REGIONS, Figure, caption_lengths, ratio, show

from hrem_jax.ops.cross_attention import cross_attention_scores
from hrem_jax.ops.relations import PRECISION

SIZE = 1024
SETTINGS = dict(inverse_temperature=9.0, aggregation='lse', lse_factor=6.0)
SIDE = 128  # of the square blocks that a test split is scored in


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
  x = rng.standard_normal(shape, np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_fragments(num_images: int, num_texts: int):
  """Regions, words and the words' mask."""
  rng = np.random.default_rng(0)
  mask = np.arange(MAX_WORDS) < caption_lengths(num_texts, rng)[:, None]
  return unit(rng, num_images, NUM_REGIONS, SIZE), unit(rng, num_texts, MAX_WORDS, SIZE), mask


def cpu_in_turns(functions: dict[str, Callable[[], object]], rounds: int) -> tuple[dict, dict]:
  """Seconds of the processor and of the clock, of each function in each round, after one that is not counted."""
  processor, clock = ({name: [] for name in functions} for _ in range(2))
  for turn in range(rounds + 1):
    for name, function in functions.items():
      started = time.process_time(), time.perf_counter()
      jax.block_until_ready(function())
      if turn:
        processor[name].append(time.process_time() - started[0])
        clock[name].append(time.perf_counter() - started[1])
  return processor, clock


def needed_products(regions, words, mask) -> Callable[[], object]:
  real_words = jnp.asarray(words[mask])
  regions = jnp.asarray(regions)
  gram = jnp.einsum('ird,isd->irs', regions, regions)
  weights = jnp.asarray(np.random.default_rng(1).random((len(regions), NUM_REGIONS, len(real_words)), np.float32))

  @jax.jit
  def products(regions, words, gram, weights):
    s = jnp.matmul(regions.reshape(-1, SIZE), words.T, precision=PRECISION)
    return s, jnp.matmul(gram, weights, precision=PRECISION)

  return functools.partial(products, regions, real_words, gram, weights)


def program(regions, words, mask, asks: str) -> Callable[[], object]:
  """As SCAN's public program: a loop over texts, contexts of size d."""
  import torch

  regions, lengths = torch.from_numpy(regions), mask.sum(1)
  texts = [torch.from_numpy(np.ascontiguousarray(words[t, :length])) for t, length in enumerate(lengths)]

  def score_text(text):
    text = text.expand(len(regions), -1, -1)
    asked, askers = (regions, text) if asks == 'words' else (text, regions)
    attention = torch.nn.functional.leaky_relu(asked @ askers.transpose(1, 2), 0.1)
    attention = attention / (attention.norm(dim=2, keepdim=True) + 1e-8)
    weights = torch.softmax(SETTINGS['inverse_temperature'] * attention.transpose(1, 2), dim=2)
    contexts = weights @ asked
    length = askers.norm(dim=2) * contexts.norm(dim=2)
    cosines = (askers * contexts).sum(2) / length.clamp(min=1e-8)
    return torch.logsumexp(SETTINGS['lse_factor'] * cosines, dim=1) / SETTINGS['lse_factor']

  def run():
    with torch.no_grad():
      return torch.stack([score_text(text) for text in texts], dim=1).numpy()

  return run


def blockwise(regions, words, mask, asks: str) -> Callable[[], object]:
  """Scores of blocks of `SIDE` images, as a test split is scored."""
  region_mask = np.ones(regions.shape[:2], bool)
  scores = jax.jit(functools.partial(cross_attention_scores, asks=asks, **SETTINGS))
  words, mask = jnp.asarray(words), jnp.asarray(mask)
  starts = range(0, len(regions), SIDE)
  blocks = [tuple(jnp.asarray(x[start : start + SIDE]) for x in (regions, region_mask)) for start in starts]
  return lambda: [scores(*block, words, mask) for block in blocks]


def compare(num_images: int, num_texts: int, rounds: int) -> Iterator[Figure]:
  arrays = make_fragments(num_images, num_texts)
  functions = {'needed': needed_products(*arrays)}
  has_torch = importlib.util.find_spec('torch') is not None
  for asks in ('words', 'regions'):
    functions[asks] = blockwise(*arrays, asks)
    if has_torch:
      functions[f'program {asks}'] = program(*arrays, asks)
      expected, found = functions[f'program {asks}'](), np.concatenate(functions[asks]())
      np.testing.assert_allclose(found, expected, atol=1e-5)
  processor, clock = cpu_in_turns(functions, rounds)
  for asks in ('words', 'regions'):
    name = f'{num_images}x{num_texts}, {asks} ask'
    yield Figure(f'{name}: seconds', statistics.median(clock[asks]), 's')
    yield Figure(f'{name}: times the products', ratio(processor, asks, 'needed'), 'x', at_most=2.5)
    if has_torch:
      yield Figure(f'{name}: PyTorch, times ours', ratio(clock, f'program {asks}', asks), 'x', at_least=4)


def train(batch_size: int, rounds: int) -> Iterator[Figure]:
  regions, words, mask = make_fragments(batch_size, batch_size)
  functions = {'needed': needed_products(regions, words, mask)}
  region_mask, memory = jnp.ones(regions.shape[:2], bool), {}
  for asks in ('words', 'regions'):

    def total(regions, words, asks=asks):
      return jnp.sum(cross_attention_scores(regions, region_mask, words, jnp.asarray(mask), asks=asks, **SETTINGS) ** 2)

    arguments = jnp.asarray(regions), jnp.asarray(words)
    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(*arguments).compile()
    memory[asks] = compiled.memory_analysis().temp_size_in_bytes
    functions[asks] = functools.partial(compiled, *arguments)
  processor, _ = cpu_in_turns(functions, rounds)
  for asks in memory:
    name = f'training, {batch_size} pairs, {asks} ask'
    yield Figure(f'{name}: times the products', ratio(processor, asks, 'needed') / 4, 'x', at_most=2.5)
    dense = 4 * batch_size**2 * NUM_REGIONS * MAX_WORDS
    yield Figure(f'{name}: memory of all products', memory[asks] / dense, 'x', note=f'{memory[asks] / 1e6:.0f} MB')


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--pairs', nargs='+', default=['200x1000'], help='images x texts')
  parser.add_argument('--batch-sizes', type=int, nargs='*', default=[128], help='of training')
  parser.add_argument('--rounds', type=int, default=3)
  arguments = parser.parse_args()
  sizes = [tuple(map(int, pairs.split('x'))) for pairs in arguments.pairs]
  scores = (row for size in sizes for row in compare(*size, arguments.rounds))
  training = (row for size in arguments.batch_sizes for row in train(size, arguments.rounds))
  show('cross_attention', itertools.chain(scores, training))


if __name__ == '__main__':
  main()
