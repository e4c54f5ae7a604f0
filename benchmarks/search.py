"""Indexes of 10,000 pictures and more: seconds and megabytes of building, opening, searching, changing.

Embeddings are those of Flickr8K's training images (the mean of their regions, 256 numbers, `../shared/flickr8k`), drawn
with a little noise until there are as many as wanted; queries likewise, with noise of their own. Where the data set is
not there, they are drawn around 6,000 centres. Every step has a process of its own, whose memory is what it has
resident at most, libraries taken off. Searching is measured from the query's embedding to ids, captions and scores.

  python benchmarks/search.py [--pictures 10000 100000 1000000] [--backends faiss usearch]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from measure import Figure, show

from hrem_jax.search.approximate import LIBRARIES, open_library
from hrem_jax.search.index import About, Index, Item, create_index, open_index
from hrem_jax.search.recall import recall_of

FLICKR = pathlib.Path(__file__).parents[2] / 'shared' / 'flickr8k'
SIZE, AT_ONCE, NOISE = 256, 2048, 0.3
ENCODER = {'identity': {'kind': 'none'}, 'place': {'path': '/nowhere', 'from_index': 'nowhere'}}
CAPTION = 'Two people in blue jackets walk along a wet street, one of them under a red umbrella.'


class Embeddings:
  """Draws embeddings, always from the same distribution."""

  def __init__(self):
    if (FLICKR / 'train_ims_int8.npy').is_file():
      regions = np.load(FLICKR / 'train_ims_int8.npy', mmap_mode='r')
      scale = np.load(FLICKR / 'scale.npy')
      means = np.concatenate([(part * scale).mean(axis=1) for part in np.array_split(regions, 20)])
    else:
      rng = np.random.default_rng(0)
      means = rng.standard_normal((6000, SIZE)) / np.sqrt(np.arange(1, SIZE + 1))
    self._centres = _unit(means - means.mean(axis=0)).astype(np.float32)

  def __call__(self, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = NOISE / np.sqrt(SIZE) * rng.standard_normal((count, SIZE), np.float32)
    return _unit(self._centres[rng.integers(0, len(self._centres), count)] + noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add(index: Index, prefix: str, first: int, vectors: np.ndarray) -> None:
  items = [
    Item(f'{prefix}_{number:08d}', (CAPTION,) * 5, f'{number:064x}') for number in range(first, first + len(vectors))
  ]
  index.add(items, vectors[:, None])


def build(address: str, arguments: argparse.Namespace) -> Iterator[tuple]:
  """Without the seconds of drawing."""
  draw, total = Embeddings(), 0.0
  about = About('of a benchmark', ENCODER, None, SIZE, dtype=arguments.dtype)
  with create_index(address, about) as index:
    for first in range(0, arguments.count, AT_ONCE):
      vectors, start = draw(min(AT_ONCE, arguments.count - first), first), time.perf_counter()
      add(index, 'picture', first, vectors)
      total += time.perf_counter() - start
    start = time.perf_counter()
  yield 'building', total + time.perf_counter() - start, 's', f'{arguments.count / total:,.0f} pictures a second'
  yield 'on the disk', pathlib.Path(address).stat().st_size / 1e6, 'MB', ''


def search(address: str, arguments: argparse.Namespace) -> Iterator[tuple]:
  queries, index, backend = Embeddings()(arguments.queries, 10**9)[:, None], open_index(address), arguments.backend
  yield from _timed('opening', lambda: index.nearest(queries[0], 10))
  if backend != 'exact':
    took = index.prepare(backend)
    yield 'making the graph', took, 's', ''
    graph = next(pathlib.Path(f'{address}.derived').glob(f'{backend}*'))
    yield 'the graph on the disk', graph.stat().st_size / 1e6, 'MB', ''
  times = []
  for query in queries:
    start = time.perf_counter()
    index.nearest(query, 10, backend=backend)
    times.append(1000 * (time.perf_counter() - start))
  yield 'a query', float(np.median(times)), 'ms', f'95 of 100 in {np.percentile(times, 95):.1f} ms'
  if backend != 'exact':
    yield 'recall@10', recall_of(index, backend, queries[:200], 10), '', ''


def change(address: str, arguments: argparse.Namespace) -> Iterator[tuple]:
  vectors = Embeddings()(1000, 10**8)
  with open_index(address) as index:
    yield from _timed('adding 1,000 pictures', lambda: add(index, 'new', 0, vectors))
    yield from _timed(
      'forgetting 1,000 pictures', lambda: index.delete([f'new_{number:08d}' for number in range(1000)])
    )


def _timed(name: str, action: Callable[[], object]) -> Iterator[tuple]:
  start = time.perf_counter()
  action()
  yield name, time.perf_counter() - start, 's', ''


STEPS = {'build': build, 'search': search, 'change': change}


def step(arguments: argparse.Namespace) -> list[tuple]:
  """What one process measures."""
  if arguments.backend in LIBRARIES:
    open_library(arguments.backend)
  Embeddings()(1, 0)
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # the most that was resident begins anew
  before = _status('VmRSS')
  rows = list(STEPS[arguments.step](arguments.address, arguments))
  return [*rows, ('memory', _status('VmHWM') - before, 'MB', '')]


def _status(name: str) -> float:
  line = next(line for line in pathlib.Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
  return int(line.split()[1]) / 1e3


def measure(folder: pathlib.Path, arguments: argparse.Namespace) -> Iterator[Figure]:
  for count in arguments.pictures:
    address = folder / f'{count}.index'
    steps = [] if address.exists() else [('build', 'exact')]
    steps += [('search', backend) for backend in ('exact', *arguments.backends)] + [('change', 'exact')]
    for name, backend in steps:
      command = [sys.executable, __file__, '--step', name, '--address', str(address), '--backend', backend]
      command += ['--count', str(count), '--queries', str(arguments.queries), '--dtype', arguments.dtype]
      ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
      for what, value, unit, note in json.loads(ended.stdout.splitlines()[-1]):
        yield Figure(f'{count:,} {backend if name == "search" else name}: {what}', value, unit, note=note)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--pictures', type=int, nargs='+', default=[10_000, 100_000])
  parser.add_argument('--queries', type=int, default=200)
  parser.add_argument('--dtype', default='float32', choices=['float32', 'float16'])
  parser.add_argument('--backends', nargs='*', default=list(LIBRARIES))
  parser.add_argument('--folder', type=pathlib.Path, help='keep the indexes there; what is there is not built again')
  for name in ('--step', '--address', '--backend'):
    parser.add_argument(name, help=argparse.SUPPRESS)
  parser.add_argument('--count', type=int, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.step:
    print(json.dumps(step(arguments)))
    return
  with tempfile.TemporaryDirectory() as temporary:
    show('search', measure(arguments.folder or pathlib.Path(temporary), arguments))


if __name__ == '__main__':
  main()
