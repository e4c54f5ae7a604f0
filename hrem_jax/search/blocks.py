"""Embeddings in blocks: what stands on the disk is what is searched in memory, and no block is ever changed there."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ROOM = 2**20  # bytes of embeddings in a block


class Block(NamedTuple):
  """Some pictures.

  Attributes:
    number: Of the block.
    checksum: Of all that is here.
    ids: Of the pictures.
    vectors: Their embeddings, float32 or float16 (pictures, views, size).
  """

  number: int
  checksum: bytes
  ids: list[str]
  vectors: np.ndarray

  @classmethod
  def of(cls, number: int, ids: Sequence[str], vectors: Float[np.ndarray, 'n v d']) -> 'Block':
    vectors = np.ascontiguousarray(vectors)
    return cls(number, checksum([number, *ids], vectors.data), list(ids), vectors)

  def without(self, ids: set[str]) -> tuple[list[str], np.ndarray]:
    kept = [row for row, name in enumerate(self.ids) if name not in ids]
    return [self.ids[row] for row in kept], self.vectors[kept]


class Snapshot:
  """All blocks of one state. Rows are counted over all pictures, in the order of the blocks.

  Attributes:
    starts: The first row of each block, and the number of all.
  """

  def __init__(self, key: object, blocks: Iterable[Block]):
    self.key, self.blocks = key, {block.number: block for block in sorted(blocks)}
    self.starts = np.array([0, *itertools.accumulate(len(block.ids) for block in self.blocks.values())], int)

  def __len__(self) -> int:
    return int(self.starts[-1])

  @functools.cached_property
  def ids(self) -> list[str]:
    """Of each row."""
    return [name for block in self.blocks.values() for name in block.ids]

  @functools.cached_property
  def sorted_ids(self) -> list[str]:
    return sorted(self.ids)

  @functools.cached_property
  def row_of(self) -> dict[str, int]:
    return {name: row for row, name in enumerate(self.ids)}

  def parts(self) -> Iterator[tuple[int, np.ndarray]]:
    """The first row of each block, and its embeddings as they are on the disk."""
    yield from zip(self.starts.tolist(), (block.vectors for block in self.blocks.values()), strict=False)

  def vectors(self, rows: Int[np.ndarray, ' r']) -> Float[np.ndarray, 'r v d']:
    """Embeddings of some rows, as they are on the disk."""
    numbers = np.searchsorted(self.starts, rows, side='right') - 1
    blocks = list(self.blocks.values())
    return np.stack([blocks[n].vectors[row - self.starts[n]] for n, row in zip(numbers, rows, strict=True)])


def num_in_a_block(vectors: np.ndarray) -> int:
  """How many pictures with such embeddings, one at least."""
  return max(ROOM // vectors[0].nbytes, 1)


def checksum(values: Sequence[object], content: bytes | memoryview = b'') -> bytes:
  """128 bits that change with every value, of whatever type, and every byte."""
  digest = hashlib.sha256(json.dumps(values, default=repr).encode())
  digest.update(content)
  return digest.digest()[:16]


def folded(checksums: Iterable[bytes]) -> int:
  """One number for a set of checksums, whatever their order: one joins or leaves it by the same operation."""
  return functools.reduce(int.__xor__, (int.from_bytes(each) for each in checksums), 0)
