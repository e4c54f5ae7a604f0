"""The nearest pictures by a graph of one of two libraries: faster than exact, and nearly always the same.

The graph is a file beside the index that can be made again at any time. It covers the first segments of the index,
which never change; pictures that have come since are compared exactly, deleted ones are passed over, and all scores are
exact.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from hrem_jax.errors import UserError
from hrem_jax.search.exact import best_of, nearest
from hrem_jax.search.snapshot import Snapshot
from hrem_jax.search.storage import replace_file

FOLDER = 'approximate'
MOST_UNCOVERED = 0.1  # of the pictures, before the graph is made anew
_MORE = 1.5  # candidates asked for, times what is wanted: some are deleted


@dataclasses.dataclass(frozen=True)
class Library:
  """What is asked of a library: a graph that grows, a file of it, and the labels nearest to a query."""

  make: Callable[[int], Any]  # size of an embedding
  add: Callable[[Any, np.ndarray, int], None]  # vectors, and the label of the first
  write: Callable[[Any, str], None]
  read: Callable[[str], Any]
  search: Callable[[Any, np.ndarray, int], np.ndarray]


class Approximate:
  """A graph over the first segments of an index. Searches of several threads do not disturb each other.

  Args:
    library: Whose graph it is.
    graph: Its labels are rows of the index.
    segments: Names of those that it covers.
  """

  def __init__(self, library: Library, graph: Any, segments: list[str]):
    self._library, self._graph, self._segments = library, graph, segments

  def nearest(
    self, snapshot: Snapshot, query: Float[np.ndarray, ' d'], count: int
  ) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
    """As `exact.nearest`, of any state of the index; a few of the best may be missing."""
    covered = num_covered(snapshot, self._segments)
    num_rows = int(snapshot.starts[covered])
    wanted = min(count, int(snapshot.is_there[:num_rows].sum()))
    found, asked = np.zeros(0, int), wanted
    while len(found) < wanted:
      asked = int(asked * _MORE) + 1
      labels = self._library.search(self._graph, query, asked)
      found = labels[(labels >= 0) & (labels < num_rows)]
      found = found[snapshot.is_there[found]]
      if len(labels) < asked:  # the graph gives no more
        break
    rest, _ = nearest(snapshot, query, count, first=covered)
    return best_of(snapshot, query, np.concatenate([found, rest]), count)


def open_approximate(snapshot: Snapshot, name: str) -> tuple[Approximate, bool]:
  """The graph of an index, and whether it had to be made: where there is none, or the index has changed much.

  Args:
    snapshot: The index.
    name: One of `LIBRARIES`.

  Raises:
    UserError: There is no such library, or it is not installed.
  """
  library = open_library(name)
  folder = snapshot.folder / FOLDER
  found = _read(folder, name, library, snapshot)
  if found is not None:
    return found, False
  graph, segments = library.make(snapshot.manifest.size), [each.name for each in snapshot.manifest.segments]
  with tqdm(total=snapshot.manifest.rows, desc=f'graph of {name}', unit='picture', leave=False) as bar:
    for row, vectors in snapshot.chunks():
      library.add(graph, vectors, row)
      bar.update(len(vectors))
  _write(folder, name, library, graph, {'index': snapshot.manifest.id, 'segments': segments})
  return Approximate(library, graph, segments), True


def num_covered(snapshot: Snapshot, segments: list[str]) -> int:
  """How many of the index's segments, from the first on, are these."""
  pairs = zip((segment.name for segment in snapshot.manifest.segments), segments, strict=False)
  return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def open_library(name: str) -> Library:
  """Raises UserError where it is unknown or not installed."""
  if name not in LIBRARIES:
    raise UserError(f'--backend {name!r}: unknown, expected one of exact, {", ".join(LIBRARIES)}')
  try:
    return LIBRARIES[name]()
  except ImportError as error:
    raise UserError(f"--backend {name}: not installed: pip install 'hrem_jax[search]'") from error


def _read(folder: pathlib.Path, name: str, library: Library, snapshot: Snapshot) -> Approximate | None:
  """The graph on the disk, if it is whole and new enough."""
  try:
    about = json.loads((folder / f'{name}.json').read_text('utf-8'))
    path, segments = folder / about['file'], about['segments']
    if about['index'] != snapshot.manifest.id or path.stat().st_size != about['bytes']:
      return None
    num_rows = int(snapshot.starts[num_covered(snapshot, segments)])
    if snapshot.is_there[num_rows:].sum() > MOST_UNCOVERED * len(snapshot):
      return None
    return Approximate(library, library.read(str(path)), segments)
  except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # what can be made again need not be explained
    return None


def _write(folder: pathlib.Path, name: str, library: Library, graph: Any, about: dict) -> None:
  """The file of a new graph first, then what says that it counts, then the old ones go."""
  folder.mkdir(exist_ok=True)
  path = folder / f'{name}_{secrets.token_hex(4)}.graph'
  library.write(graph, str(path))
  with path.open('rb') as file:
    os.fsync(file)
  about |= {'file': path.name, 'bytes': path.stat().st_size}
  replace_file(folder / f'{name}.json', json.dumps(about).encode())
  for old in folder.glob(f'{name}_*.graph'):
    if old.name != path.name:
      old.unlink(missing_ok=True)


def _faiss() -> Library:
  import faiss

  def make(size: int):
    graph = faiss.IndexHNSWFlat(size, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 80, 128
    return graph

  def search(graph, query: np.ndarray, count: int) -> np.ndarray:
    parameters = faiss.SearchParametersHNSW(efSearch=max(128, 2 * count))
    return graph.search(query[None], min(count, graph.ntotal), params=parameters)[1][0]

  return Library(make, lambda graph, vectors, _: graph.add(vectors), faiss.write_index, faiss.read_index, search)


def _usearch() -> Library:
  from usearch.index import Index

  def make(size: int):
    return Index(ndim=size, metric='ip', dtype='f16', connectivity=16, expansion_add=128, expansion_search=128)

  def add(graph, vectors: np.ndarray, first: int) -> None:
    graph.add(np.arange(first, first + len(vectors)), vectors, threads=os.cpu_count())

  def search(graph, query: np.ndarray, count: int) -> np.ndarray:
    return graph.search(query, count).keys.astype(int)

  def read(path: str):
    graph = Index.restore(path, view=True)  # mapped: a process that starts for one search need not read all of it
    graph.expansion_search = 128
    return graph

  return Library(make, add, lambda graph, path: graph.save(path), read, search)


LIBRARIES: dict[str, Callable[[], Library]] = {'faiss': _faiss, 'usearch': _usearch}
