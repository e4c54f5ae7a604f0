"""The association graph beside the bare matrix product of the same fragments, and its memory beside a dense tensor.

Batches of 36 regions and captions of 14 words on average, 40 at most, fragments of size 1024, as in a training of the
paper's size. "Bare" is `regions @ words` of the real words only, one call of the matrix library; "padded" the same with
captions padded to 40 words, as a program without packing multiplies them; both in full float32, as the graph's.

  python benchmarks/association.py
"""

import argparse
import functools
import statistics
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from measure import MAX_WORDS, NUM_REGIONS, Figure, caption_lengths, in_turns, ratio, show

from hrem_jax.ops.relations import PRECISION, fragment_relations

SIZE = 1024


def compare(batch_size: int, rounds: int) -> Iterator[Figure]:
  rng = np.random.default_rng(0)
  mask = np.arange(MAX_WORDS) < caption_lengths(batch_size, rng)[:, None]
  regions = jnp.asarray(rng.standard_normal((batch_size, NUM_REGIONS, SIZE), np.float32))
  words = jnp.asarray(rng.standard_normal((batch_size, MAX_WORDS, SIZE), np.float32))
  arguments = regions, jnp.ones(regions.shape[:2], bool), words, jnp.asarray(mask)
  relate = jax.jit(fragment_relations).lower(*arguments).compile()

  @jax.jit
  def product(regions, words):
    return jnp.matmul(regions.reshape(-1, SIZE), words.reshape(-1, SIZE).T, precision=PRECISION)

  real_words = words[mask]
  times = in_turns(
    {
      'graph': functools.partial(relate, *arguments),
      'bare': functools.partial(product, regions, real_words),
      'padded': functools.partial(product, regions, words),
    },
    rounds,
  )
  name = f'batch {batch_size}'
  yield Figure(f'{name}: seconds', statistics.median(times['graph']), 's')
  yield Figure(f'{name}: time of the bare product', ratio(times, 'graph', 'bare'), 'x', at_most=1.6)
  yield Figure(f'{name}: time of the product padded', ratio(times, 'graph', 'padded'), 'x')
  dense = 4 * len(regions) ** 2 * NUM_REGIONS * MAX_WORDS
  extra = relate.memory_analysis().temp_size_in_bytes
  note = f'{extra / 1e6:.0f} MB of {dense / 1e6:.0f} MB'
  yield Figure(
    f'{name}: memory of the dense tensor', extra / dense, 'x', at_most=0.25 if batch_size >= 256 else None, note=note
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch-sizes', type=int, nargs='+', default=[64, 128, 256])
  parser.add_argument('--rounds', type=int, default=9)
  arguments = parser.parse_args()
  show('association', (row for size in arguments.batch_sizes for row in compare(size, arguments.rounds)))


if __name__ == '__main__':
  main()
