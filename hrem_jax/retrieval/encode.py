"""Whole data sets through the two encoders alone: to embeddings, or to the fragments that a score is made of."""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from hrem_jax.data.batch import ImageInputs
from hrem_jax.data.pipeline import Images, image_chunks, text_chunks
from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions
from hrem_jax.errors import UserError
from hrem_jax.files import temporary_array
from hrem_jax.methods.method import Method
from hrem_jax.models.encoded import Encoded
from hrem_jax.sharding import replicated, split_rows, split_whole


class TextBlock(NamedTuple):
  """Some encoded captions of about the same length."""

  captions: Int[np.ndarray, ' c']  # their numbers; what comes behind these rows is padding
  encoded: Encoded  # host arrays


def num_instances(encoded: Encoded) -> int:
  return len(jax.tree.leaves(encoded)[0])


class HostMemory:
  """Hands out host arrays: up to so many megabytes in memory, what is more in temporary files that are mapped."""

  def __init__(self, megabytes: float):
    self._left = megabytes * 1e6

  def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    if size <= self._left:
      self._left -= size
      return np.empty(shape, dtype)
    return temporary_array(shape, dtype)


def require_embeddings(method: Method, whose: str) -> None:
  """Raises UserError where a method has no embeddings of images and texts."""
  if method.kind != 'embeddings':
    raise UserError(
      f'{whose}: {type(method).__name__} scores pairs of an image and a text by their fragments and has no embeddings, '
      'which an index, a search and clusters are made of; evaluation, ensembles and `Matcher.similarity` work'
    )


class DataEncoder:
  """Encodes with compiled functions that are kept: encoders of equal methods on equal devices share them.

  Every process encodes the whole set together with the others and gets all of it.
  """

  def __init__(self, method: Method, mesh: Mesh, *, chunk_size: int):
    self._mesh, self._chunk_size, self._wants = mesh, chunk_size, method.wants
    self._images, self._texts = (_compiled(method, mesh, name) for name in ('encode_images', 'encode_texts'))

  def encode_images(self, variables: dict, images: Images) -> Float[np.ndarray, 'i d']:
    """Unit-norm float32 embeddings in the order of the images, of which there is at least one."""
    return self.encode_image_fragments(variables, images).embedding

  def encode_image_fragments(self, variables: dict, images: Images, memory: HostMemory | None = None) -> Encoded:
    """All that a score looks at, in the order of the images; arrays come from `memory`."""
    memory = HostMemory(math.inf) if memory is None else memory
    encoded = self._encoded(self._images, variables, self.image_chunks(images))
    return self._gather(encoded, len(images), memory)

  def image_chunks(self, images: Images) -> Iterator[tuple[Int[np.ndarray, ' c'], ImageInputs]]:
    """All images as the encoder takes them, some at a time."""
    return image_chunks(images, self._chunk(len(images)), self._wants)

  def encode_texts(
    self,
    variables: dict,
    tokenized: TokenizedCaptions,
    tokenizer: TextTokenizer,
    max_width: int,
    widths: tuple[int, ...] | None = None,
  ) -> Float[np.ndarray, 't d']:
    """Unit-norm float32 embeddings in the order of the captions; what is longer than `max_width` tokens is cut.

    Rows have one of `widths`, if they are given: a program each, and no more.
    """
    chunks = text_chunks(tokenized, tokenizer, self._chunk(len(tokenized)), max_width, widths)
    encoded = self._encoded(self._texts, variables, chunks)
    return self._gather(encoded, len(tokenized), HostMemory(math.inf)).embedding

  def encode_text_fragments(
    self,
    variables: dict,
    tokenized: TokenizedCaptions,
    tokenizer: TextTokenizer,
    widths: tuple[int, ...],
    memory: HostMemory | None = None,
  ) -> list[TextBlock]:
    """All that a score looks at, in blocks of equally many rows, shortest captions first; arrays come from `memory`."""
    memory = HostMemory(math.inf) if memory is None else memory
    chunks = text_chunks(tokenized, tokenizer, self._chunk(len(tokenized)), widths[-1], widths)

    def stored(rows: np.ndarray) -> np.ndarray:
      place = memory.empty(rows.shape, rows.dtype)
      place[:] = rows
      return place

    encoded = self._encoded(self._texts, variables, chunks)
    return [TextBlock(index, jax.tree.map(stored, block)) for index, block in encoded]

  def _chunk(self, count: int) -> int:
    """Rows at a time: a few sentences need not pay for a whole chunk, and few sizes mean few programs."""
    devices = self._mesh.size
    return min(self._chunk_size, devices * 2 ** math.ceil(math.log2(max(count / devices, 1))))

  def _encoded(self, encode, variables: dict, chunks: Iterable[tuple]) -> Iterator[tuple[np.ndarray, Encoded]]:
    """Each chunk's rows of the whole set, and what becomes of it, on the host: padding included."""
    waiting = []
    for index, inputs in chunks:
      waiting.append((index, encode(variables, split_whole(inputs, self._mesh))))
      # One chunk is read from disk while the device works on the one before.
      if len(waiting) > 1:
        yield _on_host(*waiting.pop(0))
    for chunk in waiting:
      yield _on_host(*chunk)

  def _gather(self, chunks: Iterable[tuple[np.ndarray, Encoded]], count: int, memory: HostMemory) -> Encoded:
    """All chunks as one, in the order of their rows."""
    whole = None
    for index, encoded in chunks:
      if whole is None:
        whole = jax.tree.map(lambda rows: memory.empty((count, *rows.shape[1:]), rows.dtype), encoded)
      for place, rows in zip(jax.tree.leaves(whole), jax.tree.leaves(encoded), strict=True):
        place[index] = rows[: len(index)]
    return whole


def _on_host(index: np.ndarray, encoded: Encoded) -> tuple[np.ndarray, Encoded]:
  return index, jax.tree.map(np.asarray, encoded)


@functools.lru_cache(maxsize=8)
def _compiled(method: Method, mesh: Mesh, name: str):
  """From variables and inputs to all that a score looks at: of a method with embeddings these alone."""

  def encode(variables: dict, inputs) -> Encoded:
    encoded = method.apply(variables, inputs, method=name)
    return Encoded(encoded.embedding) if method.kind == 'embeddings' else encoded

  return jax.jit(encode, in_shardings=(replicated(mesh), split_rows(mesh)), out_shardings=replicated(mesh))
