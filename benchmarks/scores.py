"""Scoring all pairs of a split by fragments: seconds, the bare products beside them, and memory.

SCAN's cross-modal attention on random fragments of the paper's size: 36 regions, captions of 14 words on average, 1024
numbers. "Products" is one call of the matrix library, `regions @ words` of the real words of as many pairs, with the
share that Gram matrices add: `words * regions * (1024 + regions)` multiply-adds a pair. Memory is what the process
takes beside the fragments (without pages of files, which the system may take back).

  python benchmarks/scores.py --sizes 200x1000 1000x5000
"""

import argparse
import contextlib
import functools
import statistics
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from measure import NUM_REGIONS, Figure, caption_lengths, seconds, show

from hrem_jax.data.pipeline import bucket_for
from hrem_jax.methods.method import Method
from hrem_jax.methods.registry import default_config
from hrem_jax.models.encoded import Encoded
from hrem_jax.ops.cross_attention import cross_attention_scores
from hrem_jax.ops.relations import PRECISION
from hrem_jax.retrieval.encode import TextBlock
from hrem_jax.retrieval.pair_scores import pair_scores
from hrem_jax.sharding import data_mesh

SIZE, TEXTS_AT_ONCE = 1024, 256
BARE_IMAGES, BARE_WORDS = 100, 4096
MEGABYTE = 1e6


class Attending(Method):
  """The score alone."""

  asks: str
  kind = 'scores'

  def score(self, images: Encoded, texts: Encoded) -> jax.Array:
    return cross_attention_scores(
      images.fragments, images.mask, texts.fragments, texts.mask, asks=self.asks, inverse_temperature=9.0
    )[None]


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
  rows = rng.standard_normal(shape, np.float32)
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_fragments(num_images: int, num_texts: int) -> tuple[Encoded, list[TextBlock], int]:
  """Images, texts in blocks as `DataEncoder` makes them, and how many words are real."""
  rng, buckets = np.random.default_rng(0), default_config().data.length_buckets
  images = Encoded(None, unit_rows(rng, num_images, NUM_REGIONS, SIZE), np.ones((num_images, NUM_REGIONS), bool))
  lengths, blocks = caption_lengths(num_texts, rng), []
  order = np.argsort(lengths, kind='stable')
  for captions in np.split(order, range(TEXTS_AT_ONCE, num_texts, TEXTS_AT_ONCE)):
    mask = np.arange(bucket_for(lengths[captions].max(), buckets)) < lengths[captions, None]
    blocks.append(TextBlock(captions, Encoded(None, unit_rows(rng, *mask.shape, SIZE), mask)))
  return images, blocks, int(lengths.sum())


def bare_rate(rounds: int) -> float:
  """Multiply-adds per second of a large product, as precise as the scores are."""
  rng = np.random.default_rng(1)
  regions, words = (jnp.asarray(unit_rows(rng, count, SIZE)) for count in (BARE_IMAGES * NUM_REGIONS, BARE_WORDS))
  product = jax.jit(functools.partial(jnp.matmul, precision=PRECISION))
  times = [seconds(lambda: product(regions, words.T)) for _ in range(rounds + 1)][1:]
  return len(regions) * len(words) * SIZE / statistics.median(times)


@contextlib.contextmanager
def watch_memory() -> Iterator[list[float]]:
  """Megabytes that this process took beside what it had, sampled; the last entry is the most."""

  def resident() -> float:
    with open('/proc/self/status', encoding='ascii') as status:
      return next(int(line.split()[1]) * 1024 / MEGABYTE for line in status if line.startswith('RssAnon'))

  before, most, is_done = resident(), [0.0], threading.Event()

  def sample() -> None:
    while not is_done.wait(0.02):
      most.append(max(most[-1], resident() - before))

  thread = threading.Thread(target=sample)
  thread.start()
  try:
    yield most
  finally:
    is_done.set()
    thread.join()


def scoring(num_images: int, num_texts: int, rounds: int) -> Iterator[Figure]:
  images, texts, num_words = make_fragments(num_images, num_texts)
  mesh, memory_mb = data_mesh(), default_config().evaluation.score_memory_mb / 2
  count = num_images * num_words * NUM_REGIONS * (SIZE + NUM_REGIONS)
  for asks in ('words', 'regions'):
    score = functools.partial(
      pair_scores, Attending(asks), {}, images, texts, np.arange(num_texts), mesh, memory_mb=memory_mb
    )
    with watch_memory() as memory:
      score()  # compiles, too
      pairs = [(seconds(score), bare_rate(1)) for _ in range(rounds)]
    name = f'{num_images} x {num_texts}, {asks} ask'
    yield Figure(f'{name}: seconds', statistics.median(time for time, _ in pairs), 's')
    multiple = statistics.median(time * rate / count for time, rate in pairs)
    yield Figure(f'{name}: time of the products', multiple, 'x', at_most=2.5)
    yield Figure(f'{name}: memory', memory[-1], 'MB', at_most=memory_mb)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--sizes', nargs='+', default=['200x1000', '1000x5000'], metavar='IMAGESxTEXTS')
  parser.add_argument('--rounds', type=int, default=3)
  arguments = parser.parse_args()
  sizes = [tuple(map(int, size.split('x'))) for size in arguments.sizes]
  show('scores', (row for size in sizes for row in scoring(*size, arguments.rounds)))


if __name__ == '__main__':
  main()
