"""The nearest pictures by a graph of one of two libraries: faster than exact, and nearly always the same.

The graph is a file beside the index that can be made again at any time. It covers the blocks of which it was made, for
as long as they are there; what has come since is compared exactly, and all scores are exact.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from hrem_jax.errors import UserError
from hrem_jax.files import replacing
from hrem_jax.search.blocks import Snapshot
from hrem_jax.search.exact import best_of, nearest

MOST_UNCOVERED = 0.1  # of the pictures, before the graph is made anew
_MORE = 1.5  # candidates asked for, times what is wanted: some are deleted


@dataclasses.dataclass(frozen=True)
class Library:
  """What is asked of a library: a graph that grows, a file of it, and the labels nearest to a query."""

  make: Callable[[int], Any]  # size of an embedding
  add: Callable[[Any, np.ndarray, int], None]  # vectors, and the label of the first
  write: Callable[[Any, IO[bytes]], None]
  read: Callable[[IO[bytes]], Any]
  search: Callable[[Any, np.ndarray, int], np.ndarray]


class Graph:
  """Searches of several threads do not disturb each other.

  Args:
    library: Whose it is.
    graph: Its labels count the embeddings of the covered blocks, one block after the other.
    covered: Number, checksum and number of labels of each block.
  """

  def __init__(self, library: Library, graph: Any, covered: list[tuple[int, str, int]]):
    self._library, self._graph, self._covered = library, graph, covered
    self._rows: tuple[object, np.ndarray, np.ndarray] = None, np.zeros(0), np.zeros(0)

  def nearest(
    self, snapshot: Snapshot, queries: Float[np.ndarray, 'q d'], count: int, among: Bool[np.ndarray, ' n'] | None = None
  ) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
    """As `exact.nearest`, of any state of the index; a few of the best may be missing."""
    rows, is_uncovered = self.rows(snapshot)
    is_wanted = np.ones(len(snapshot), bool) if among is None else among
    wanted = min(count, int((is_wanted & ~is_uncovered).sum()))
    found, _ = nearest(snapshot, queries, count, is_wanted & is_uncovered)
    found = np.concatenate([found, *(self._search(rows, query, wanted, is_wanted) for query in queries)])
    return best_of(snapshot, queries, np.unique(found), count)

  def _search(
    self, rows: Int[np.ndarray, ' l'], query: Float[np.ndarray, ' d'], wanted: int, is_wanted: Bool[np.ndarray, ' n']
  ) -> Int[np.ndarray, ' c']:
    found, asked = np.zeros(0, int), wanted
    while len(found) < wanted:
      asked = int(asked * _MORE) + 1
      labels = self._library.search(self._graph, query, asked)
      found = rows[labels[(labels >= 0) & (labels < len(rows))]]
      found = np.unique(found[found >= 0])
      found = found[is_wanted[found]]
      if len(labels) < asked:  # the graph gives no more
        break
    return found

  def rows(self, snapshot: Snapshot) -> tuple[Int[np.ndarray, ' l'], Bool[np.ndarray, ' n']]:
    """The row of each label, -1 where its block is no more, and which rows the graph does not cover."""
    if self._rows[0] != snapshot.key:
      starts = dict(zip(snapshot.blocks, snapshot.starts.tolist(), strict=False))
      parts, is_uncovered = [np.zeros(0, int)], np.ones(len(snapshot), bool)
      for number, digest, labels in self._covered:
        block, part = snapshot.blocks.get(number), np.full(labels, -1)
        if block is not None and block.checksum.hex() == digest:
          rows = np.arange(starts[number], starts[number] + len(block.ids))
          part, is_uncovered[rows] = np.repeat(rows, block.vectors.shape[1]), False
        parts.append(part)
      self._rows = snapshot.key, np.concatenate(parts), is_uncovered
    return self._rows[1:]

  def is_new_enough(self, snapshot: Snapshot) -> bool:
    return self.rows(snapshot)[1].sum() <= MOST_UNCOVERED * len(snapshot)

  def write(self, path: pathlib.Path) -> None:
    """One file: the SHA-256 of what follows, a line about the covered blocks, the graph."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open('w+b') as file:
      file.write(b'0' * 64 + b'\n' + json.dumps(self._covered).encode() + b'\n')
      self._library.write(self._graph, file)
      digest = _digest(file)
      file.seek(0)
      file.write(digest.encode())


def build(name: str, snapshot: Snapshot, size: int) -> Graph:
  """A new graph of all embeddings."""
  library, label = open_library(name), 0
  graph = library.make(size)
  with tqdm(total=len(snapshot), desc=f'graph of {name}', unit='picture', leave=False) as bar:
    for _, vectors in snapshot.parts():
      flat = vectors.reshape(-1, size).astype(np.float32, copy=False)
      library.add(graph, flat, label)
      label += len(flat)
      bar.update(len(vectors))
  covered = [(number, block.checksum.hex(), len(block.vectors) * block.vectors.shape[1]) for number, block in
             snapshot.blocks.items()]  # fmt: skip
  return Graph(library, graph, covered)


def read(path: pathlib.Path, name: str) -> Graph | None:
  """The graph in a file, if it is there and whole. No library sees a byte before all were compared with the SHA-256."""
  library = open_library(name)
  try:
    with path.open('rb') as file:
      if file.read(65).decode() != _digest(file) + '\n':
        return None
      file.seek(65)
      covered = [tuple(each) for each in json.loads(file.readline())]
      return Graph(library, library.read(file), covered)
  except (OSError, ValueError):  # what can be made again need not be explained
    return None


def _digest(file: IO[bytes]) -> str:
  """SHA-256 of all behind the first line."""
  file.seek(65)
  digest = hashlib.sha256()
  while chunk := file.read(2**20):
    digest.update(chunk)
  return digest.hexdigest()


def open_library(name: str) -> Library:
  """Raises UserError where it is unknown or not installed."""
  if name not in LIBRARIES:
    raise UserError(f'--backend {name!r}: unknown, expected one of exact, {", ".join(LIBRARIES)}')
  try:
    return LIBRARIES[name]()
  except ImportError as error:
    raise UserError(f"--backend {name}: not installed: pip install 'hrem_jax[search]'") from error


def _faiss() -> Library:
  import faiss

  def make(size: int):
    graph = faiss.IndexHNSWFlat(size, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 80, 128
    return graph

  def search(graph, query: np.ndarray, count: int) -> np.ndarray:
    parameters = faiss.SearchParametersHNSW(efSearch=max(128, 2 * count))
    return graph.search(query[None], min(count, graph.ntotal), params=parameters)[1][0]

  def write(graph, file: IO[bytes]) -> None:
    faiss.write_index(graph, faiss.PyCallbackIOWriter(file.write))

  def read(file: IO[bytes]):
    return faiss.read_index(faiss.PyCallbackIOReader(file.read))

  return Library(make, lambda graph, vectors, _: graph.add(vectors), write, read, search)


def _usearch() -> Library:
  from usearch.index import Index

  def make(size: int):
    return Index(ndim=size, metric='ip', dtype='f16', connectivity=16, expansion_add=128, expansion_search=128)

  def add(graph, vectors: np.ndarray, first: int) -> None:
    graph.add(np.arange(first, first + len(vectors)), vectors, threads=os.cpu_count())

  def search(graph, query: np.ndarray, count: int) -> np.ndarray:
    return graph.search(query, count).keys.astype(int)

  def read(file: IO[bytes]):
    content = file.read()  # a mapped file that is cut short would end the process
    graph = Index.restore(content, view=True)
    graph.expansion_search, graph.content = 128, content  # which it looks at
    return graph

  return Library(make, add, lambda graph, file: file.write(graph.save()), read, search)


LIBRARIES: dict[str, Callable[[], Library]] = {'faiss': _faiss, 'usearch': _usearch}
