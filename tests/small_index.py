"""Small indexes without an encoder, and what must be found in them, the slow way."""

import pathlib

import numpy as np

from hrem_jax.search.snapshot import Snapshot
from hrem_jax.search.writer import IndexWriter, Item, create_index, open_writer

SIZE = 5
ENCODER = {'identity': {'kind': 'none'}, 'place': {'path': '/nowhere', 'from_index': '../nowhere'}}
# Id to the embedding and the caption.
Content = dict[str, tuple[np.ndarray, str]]


def unit_vectors(seed: int, count: int, size: int = SIZE) -> np.ndarray:
  vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_content(ids: list[str], seed: int = 0) -> Content:
  return {name: (v, f'about {name}, {seed}') for name, v in zip(ids, unit_vectors(seed, len(ids)), strict=True)}


def add(writer: IndexWriter, content: Content) -> None:
  items = [Item(name, (caption,), f'print of {caption}') for name, (_, caption) in content.items()]
  writer.add(items, np.array([vector for vector, _ in content.values()], np.float32).reshape(-1, SIZE))


def make_index(folder: pathlib.Path, *contents: Content, dtype: str = 'float32') -> pathlib.Path:
  """An index with a segment for each content."""
  create_index(folder, ENCODER, None, SIZE, dtype)
  with open_writer(folder) as writer:
    for content in contents:
      add(writer, content)
  return folder


def content_of(snapshot: Snapshot) -> Content:
  """All that is in an index, in the order of its ids."""
  rows = np.array([snapshot.row(name) for name in snapshot.ids], int)
  captions = [snapshot.item(int(row))['captions'] for row in rows]
  return {
    name: (vector, *its) for name, vector, its in zip(snapshot.ids, snapshot.vectors(rows), captions, strict=True)
  }


def assert_same_content(ours: Content, theirs: Content) -> None:
  assert list(ours) == sorted(theirs)
  for name, (vector, caption) in ours.items():
    assert caption == theirs[name][1]
    np.testing.assert_array_equal(vector, theirs[name][0])


def brute_force(content: Content, query: np.ndarray, count: int) -> list[str]:
  """Ids, best first, equal scores by id."""
  scores = {name: round(float(np.float64(vector) @ np.float64(query)), 12) for name, (vector, _) in content.items()}
  return sorted(content, key=lambda name: (-scores[name], name))[:count]
