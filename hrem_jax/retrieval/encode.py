"""Whole data sets to embeddings, with the two encoders alone."""

import functools
import math

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from hrem_jax.data.pipeline import Images, image_chunks, text_chunks
from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions
from hrem_jax.methods.method import Method
from hrem_jax.sharding import replicated, split_rows


class DataEncoder:
  """Encodes with compiled functions that are kept: encoders of equal methods on equal devices share them.

  Every process encodes the whole set together with the others and gets all of it.
  """

  def __init__(self, method: Method, mesh: Mesh, *, chunk_size: int):
    self._mesh, self._chunk_size, self._wants = mesh, chunk_size, method.wants
    self._images, self._texts = (_compiled(method, mesh, name) for name in ('encode_images', 'encode_texts'))

  def encode_images(self, variables: dict, images: Images) -> Float[np.ndarray, 'i d']:
    """Unit-norm float32 embeddings in the order of the images, of which there is at least one."""
    chunks = image_chunks(images, self._chunk(len(images)), self._wants)
    return self._gather(self._images, variables, chunks, len(images))

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
    return self._gather(self._texts, variables, chunks, len(tokenized))

  def _chunk(self, count: int) -> int:
    """Rows at a time: a few sentences need not pay for a whole chunk, and few sizes mean few programs."""
    devices = self._mesh.size
    return min(self._chunk_size, devices * 2 ** math.ceil(math.log2(max(count / devices, 1))))

  def _gather(self, encode, variables: dict, chunks, count: int) -> np.ndarray:
    embeddings, waiting = None, []
    for index, inputs in chunks:
      waiting.append((index, encode(variables, jax.tree.map(self._global, inputs))))
      # One chunk is read from disk while the device works on the one before.
      if len(waiting) > 1:
        embeddings = _store(embeddings, *waiting.pop(0), count)
    for index, encoded in waiting:
      embeddings = _store(embeddings, index, encoded, count)
    return embeddings

  def _global(self, rows: np.ndarray) -> jax.Array:
    """Every process has all rows; each device takes its own."""
    return jax.make_array_from_callback(rows.shape, split_rows(self._mesh), lambda where: rows[where])


@functools.lru_cache(maxsize=8)
def _compiled(method: Method, mesh: Mesh, name: str):
  """From variables and inputs to embeddings."""
  return jax.jit(
    lambda variables, inputs: method.apply(variables, inputs, method=name).embedding,
    in_shardings=(replicated(mesh), split_rows(mesh)),
    out_shardings=replicated(mesh),
  )


def _store(embeddings: np.ndarray | None, index: np.ndarray, encoded: jax.Array, count: int) -> np.ndarray:
  rows = np.asarray(encoded)[: len(index)]
  if embeddings is None:
    embeddings = np.empty((count, rows.shape[1]), rows.dtype)
  embeddings[index] = rows
  return embeddings
