"""Small indexes without an encoder, and what must be found in them, the slow way."""

import pathlib

import numpy as np

from hrem_jax.search.index import About, Index, Item, create_index

SIZE = 5
ENCODER = {'identity': {'kind': 'none'}, 'place': {'path': '/nowhere', 'from_index': '../nowhere'}}
# Id to the embeddings and the caption.
Content = dict[str, tuple[np.ndarray, str]]


def unit_vectors(seed: int, count: int, size: int = SIZE) -> np.ndarray:
  vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_content(ids: list[str], seed: int = 0, views: int = 1) -> Content:
  vectors = unit_vectors(seed, len(ids) * views).reshape(len(ids), views, SIZE)
  return {name: (v, f'about {name}, {seed}') for name, v in zip(ids, vectors, strict=True)}


def add(index: Index, content: Content) -> None:
  items = [Item(name, (caption,), f'print of {caption}') for name, (_, caption) in content.items()]
  index.add(items, np.stack([vectors for vectors, _ in content.values()]).astype(np.float32))


def about(**changes) -> About:
  return About(**{'id': 'of a test', 'encoder': ENCODER, 'pictures': None, 'size': SIZE, **changes})


def make_index(address: str | pathlib.Path, *contents: Content, **changes) -> str | pathlib.Path:
  """An index to which the contents are added one after the other."""
  with create_index(address, about(**changes)) as index:
    for content in contents:
      add(index, content)
  return address


def content_of(index: Index) -> Content:
  """All that is in an index, in the order of its ids."""
  return {name: (index.vectors(name), *index.item(name).captions) for name in index.ids()}


def assert_same_content(ours: Content, theirs: Content) -> None:
  assert list(ours) == sorted(theirs)
  for name, (vectors, caption) in ours.items():
    assert caption == theirs[name][1]
    np.testing.assert_array_equal(vectors, theirs[name][0])


def found(index: Index, query: np.ndarray, count: int, **options) -> list[str]:
  return [each.item.id for each in index.nearest(query[None], count, **options)]


def brute_force(content: Content, query: np.ndarray, count: int) -> list[str]:
  """Ids, best first, equal scores by id."""
  scores = {name: round(float((np.float64(v) @ np.float64(query)).max()), 12) for name, (v, _) in content.items()}
  return sorted(content, key=lambda name: (-scores[name], name))[:count]
