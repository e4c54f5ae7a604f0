"""An index of 100,000 pictures: building, adding, deleting, searching, and what it takes of memory and disk.

Embeddings of 1024 numbers are drawn around 2,000 centres in a space of 128 directions of falling weight, as those of
pictures are; queries are drawn likewise. (Independent random vectors have no neighbours worth the name: no graph
finds them.) Searching is measured within one process, from the query's embedding to rows and scores; memory is what a
new process that opens the index and searches has resident at most, beyond its libraries.

  python benchmarks/search.py
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from measure import Figure, seconds, show

from hrem_jax.search import exact
from hrem_jax.search.approximate import LIBRARIES, open_approximate, open_library
from hrem_jax.search.recall import Nearest, recall_of
from hrem_jax.search.snapshot import Snapshot, open_snapshot
from hrem_jax.search.writer import Item, create_index, open_writer

SIZE, DIRECTIONS, CENTRES, AT_ONCE = 1024, 128, 2_000, 2048
ENCODER = {'identity': {'kind': 'none'}, 'place': {'path': '/nowhere', 'from_index': 'nowhere'}}


class Embeddings:
  """Draws embeddings, always from the same distribution."""

  def __init__(self):
    rng = np.random.default_rng(0)
    weights = 1 / np.sqrt(np.arange(1, DIRECTIONS + 1))
    basis = np.linalg.qr(rng.standard_normal((SIZE, DIRECTIONS)))[0].T
    self._basis = (weights[:, None] * basis).astype(np.float32)
    self._centres = rng.standard_normal((CENTRES, DIRECTIONS), np.float32)

  def __call__(self, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    latent = self._centres[rng.integers(0, CENTRES, count)] + rng.standard_normal((count, DIRECTIONS), np.float32)
    vectors = latent @ self._basis + 0.02 * rng.standard_normal((count, SIZE), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def items(prefix: str, first: int, count: int) -> list[Item]:
  caption = 'Two people in blue jackets walk along a wet street, one of them under a red umbrella.'
  return [Item(f'{prefix}_{number:07d}', (caption,) * 5, f'{number:064x}') for number in range(first, first + count)]


def build(folder: pathlib.Path, count: int, draw: Embeddings, dtype: str) -> float:
  """Seconds, without those of drawing."""
  create_index(folder, ENCODER, None, SIZE, dtype)
  total = 0.0
  with open_writer(folder) as writer:
    for first in range(0, count, AT_ONCE):
      size = min(AT_ONCE, count - first)
      vectors, start = draw(size, first), time.perf_counter()
      writer.add(items('picture', first, size), vectors)
      total += time.perf_counter() - start
  return total


def latencies(snapshot: Snapshot, nearest: Nearest, queries: np.ndarray) -> tuple[float, str]:
  """The median in milliseconds and, for people, the 95th percentile."""
  nearest(snapshot, queries[0], 10)
  times = [1000 * seconds(lambda query=query: nearest(snapshot, query, 10)) for query in queries]
  return statistics.median(times), f'95 of 100 in {np.percentile(times, 95):.1f} ms'


def megabytes(folder: pathlib.Path) -> float:
  return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6


def change(folder: pathlib.Path, draw: Embeddings) -> Iterator[Figure]:
  def add():
    with open_writer(folder) as writer:
      writer.add(items('new', 0, 1000), vectors)

  def delete():
    with open_writer(folder) as writer:
      writer.delete(writer.snapshot.ids[::100][:1000])

  vectors = draw(1000, 10**8)
  yield Figure('adding 1,000 pictures', seconds(add), 's', note='opening the index included')
  yield Figure('deleting 1,000 pictures', seconds(delete), 's', note='opening the index included')
  with open_writer(folder) as writer:
    yield Figure('writing all anew', seconds(writer.compact), 's', note='happens when a quarter is deleted')


def search(folder: pathlib.Path, backends: list[str], draw: Embeddings, num_queries: int) -> Iterator[Figure]:
  queries = draw(num_queries, 10**9)
  yield Figure('opening the index', seconds(lambda: open_snapshot(folder).order), 's')
  snapshot = open_snapshot(folder)
  dtype = snapshot.manifest.dtype
  median, note = latencies(snapshot, exact.nearest, queries)
  yield Figure(f'exact, {dtype}: a query', median, 'ms', note=note)
  yield Figure(f'exact, {dtype}: memory', peak(folder, 'exact'), 'MB', note='resident at most, maps included')
  for name in backends:
    start = time.perf_counter()
    graph, _ = open_approximate(snapshot, name)
    yield Figure(f'{name}: building the graph', time.perf_counter() - start, 's')
    median, note = latencies(snapshot, graph.nearest, queries)
    yield Figure(f'{name}: a query', median, 'ms', note=note)
    yield Figure(f'{name}: recall@10', recall_of(snapshot, graph.nearest, queries, 10), '')
    size = sum(path.stat().st_size for path in folder.glob(f'approximate/{name}_*.graph')) / 1e6
    yield Figure(f'{name}: memory', peak(folder, name), 'MB', note=f'resident at most; {size:.0f} MB more on the disk')


def peak(folder: pathlib.Path, backend: str) -> float:
  """Resident megabytes at most of a new process that searches, those of its libraries taken off."""
  command = [sys.executable, __file__, '--resident', str(folder), backend]
  return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident(folder: pathlib.Path, backend: str) -> float:
  if backend != 'exact':
    open_library(backend)
  before = _status('VmRSS')
  snapshot = open_snapshot(folder)
  nearest = exact.nearest if backend == 'exact' else open_approximate(snapshot, backend)[0].nearest
  for query in snapshot.vectors(np.arange(0, len(snapshot), max(len(snapshot) // 20, 1))):
    nearest(snapshot, query, 10)
  return _status('VmHWM') - before


def _status(name: str) -> float:
  """Megabytes; not by getrusage, whose maximum a new process inherits."""
  line = next(line for line in pathlib.Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
  return int(line.split()[1]) / 1e3


def measure(folder: pathlib.Path, arguments: argparse.Namespace) -> Iterator[Figure]:
  draw, count = Embeddings(), arguments.pictures
  needed = build(folder / 'float32', count, draw, 'float32')
  yield Figure('building', needed, 's', note=f'{count / needed:,.0f} pictures per second, embeddings given')
  yield Figure(
    'on the disk', megabytes(folder / 'float32'), 'MB', note=f'{4 * count * SIZE / 1e6:.0f} MB are embeddings'
  )
  yield from search(folder / 'float32', arguments.backends, draw, arguments.queries)
  yield from change(folder / 'float32', draw)
  shutil.rmtree(folder / 'float32')
  build(folder / 'float16', count, draw, 'float16')
  yield Figure('on the disk, float16', megabytes(folder / 'float16'), 'MB')
  yield from search(folder / 'float16', [], draw, arguments.queries)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--pictures', type=int, default=100_000)
  parser.add_argument('--queries', type=int, default=200)
  parser.add_argument('--backends', nargs='*', choices=list(LIBRARIES), default=list(LIBRARIES))
  parser.add_argument('--resident', nargs=2, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.resident:
    print(resident(pathlib.Path(arguments.resident[0]), arguments.resident[1]))
    return
  with tempfile.TemporaryDirectory() as folder:
    show('search', measure(pathlib.Path(folder), arguments))


if __name__ == '__main__':
  main()
