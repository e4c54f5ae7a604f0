"""Ranks straight from embeddings: one product, one block of it in memory at a time (METHOD section 6).

Two things could break ties by rounding, and both are removed here instead of being met with a tolerance:

* BLAS adds up a product in an order that depends on where in the block an entry stands (edge kernels, threads), so two
  identical captions can score differently in the last bit; on some processors no block shape avoids it. Therefore
  identical embeddings are found first, and all of them get the score of the first.
* A text's own score is needed before the first comparison, and a second computation may round differently. Therefore
  the blocks that hold own scores are computed first and kept (together as large as one block of rows); each score comes
  from one place only, and the product is done once.

What remains is honest rounding: two *different* embeddings whose exact scores agree to the last bit may be ordered
differently under another `chunk`.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hrem_jax.ops.ranking import RankCounter, RetrievalRanks, check_owner

DEFAULT_CHUNK = 256


class _Block(NamedTuple):
  """Some images, the texts that belong to them, and the scores between the two."""

  images: Int[np.ndarray, 'b']  # rows of the image embeddings, ascending, no two identical
  texts: slice  # in grouped order: sorted by image, an image that equals an earlier one counting as that one
  own_scores: Float[np.ndarray, 'b own']


def ranks_from_embeddings(
  image_embeddings: Float[np.ndarray, 'i d'],
  text_embeddings: Float[np.ndarray, 't d'],
  owner: Int[np.ndarray, 't'],
  *,
  chunk: int = DEFAULT_CHUNK,
) -> RetrievalRanks:
  """Ranks of both directions, scores being dot products (METHOD section 6).

  Args:
    image_embeddings: One row per image. Half precision is widened to float32 first.
    text_embeddings: One row per text.
    owner: Row of each text's image. An image without texts asks no question but stays a candidate for every text.
    chunk: Images per block. Beside the inputs about `2 * chunk * t` scores are held; the texts are copied only where
      they are not in the order of their images, or where embeddings of images are identical.

  Returns:
    The counts behind every tie rule. Identical embeddings always tie.

  Raises:
    FloatingPointError: A score is NaN or infinite.
    ValueError: Wrong shapes, an owner that is no row, or `chunk` below 1.
  """
  images, texts = _as_matrices(image_embeddings, text_embeddings)
  owner = check_owner(owner, len(images), len(texts))
  if chunk < 1:
    raise ValueError(f'chunk must be at least 1, found {chunk}')
  same_image, same_text = first_identical(images), first_identical(texts)
  order = np.argsort(same_image[owner], kind='stable')
  grouped, place = texts, slice(None)
  if not np.array_equal(order, np.arange(len(order))):
    grouped, place = texts[order], np.argsort(order)
  source = same_image[owner][order]

  with np.errstate(over='ignore', invalid='ignore'):  # the counter names the score that is not finite
    blocks = _own_blocks(images, grouped, source, np.unique(same_image), chunk)
    true_scores = _one_per_pair(_true_scores(blocks, source)[place], same_image[owner], same_text)
    counter = RankCounter(true_scores, owner, len(images))
    copies = np.flatnonzero(same_text != np.arange(len(texts)))
    originals = same_text[copies]
    texts_of, images_like = _by_value(same_image[owner], len(images)), _by_value(same_image, len(images))
    for image, scores in _rows(blocks, images, grouped, chunk):
      scores = scores[place]
      own = texts_of(image)
      scores[same_text[own]] = true_scores[own]
      scores[copies] = scores[originals]
      for same in images_like(image):
        counter.add(int(same), scores)
  return counter.ranks()


def _as_matrices(
  image_embeddings: Float[np.ndarray, 'i d'], text_embeddings: Float[np.ndarray, 't d']
) -> tuple[Float[np.ndarray, 'i d'], Float[np.ndarray, 't d']]:
  """Both in one dtype of at least float32; raises ValueError if they can't be multiplied."""
  images, texts = np.asarray(image_embeddings), np.asarray(text_embeddings)
  if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or images.shape[1] == 0:
    raise ValueError(f'embeddings must be two matrices of one width, found shapes {images.shape} and {texts.shape}')
  dtype = np.result_type(images.dtype, texts.dtype, np.float32)
  return images.astype(dtype, copy=False), texts.astype(dtype, copy=False)


def first_identical(rows: Float[np.ndarray, 'n d']) -> Int[np.ndarray, 'n']:
  """For every row the index of the first row equal to it, often its own; -0.0 equals 0.0."""
  first = np.arange(len(rows))
  _, group, size = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
  seen: dict[bytes, int] = {}
  for row in np.flatnonzero(size[group] > 1):  # few rows share even their first number
    digest = hashlib.blake2b((rows[row] + 0.0).tobytes()).digest()
    first[row] = seen.setdefault(digest, row)
  return first


def _by_value(values: Int[np.ndarray, 'n'], size: int) -> Callable[[int], Int[np.ndarray, '...']]:
  """Looks up where a value in `0..size - 1` stands."""
  order = np.argsort(values, kind='stable')
  bounds = np.searchsorted(values[order], np.arange(size + 1))
  return lambda value: order[bounds[value] : bounds[value + 1]]


def _own_blocks(
  images: Float[np.ndarray, 'i d'],
  grouped: Float[np.ndarray, 't d'],
  source: Int[np.ndarray, 't'],
  distinct: Int[np.ndarray, 'n'],
  chunk: int,
) -> list[_Block]:
  """The diagonal of the product: every `chunk` distinct images with the texts that belong to them."""
  blocks = []
  for start in range(0, len(distinct), chunk):
    rows = distinct[start : start + chunk]
    texts = slice(*np.searchsorted(source, [rows[0], rows[-1] + 1]))
    blocks.append(_Block(rows, texts, images[rows] @ grouped[texts].T))
  return blocks


def _true_scores(blocks: list[_Block], source: Int[np.ndarray, 't']) -> Float[np.ndarray, 't']:
  """Score of every text, in grouped order, with its own image."""
  rows = [np.searchsorted(block.images, source[block.texts]) for block in blocks]
  return np.concatenate([block.own_scores[row, np.arange(len(row))] for row, block in zip(rows, blocks, strict=True)])


def _one_per_pair(
  true_scores: Float[np.ndarray, 't'], same_image: Int[np.ndarray, 't'], same_text: Int[np.ndarray, 't']
) -> Float[np.ndarray, 't']:
  """Gives all pairs of identical embeddings the score of the first of them."""
  _, first, pair = np.unique(same_image * len(same_text) + same_text, return_index=True, return_inverse=True)
  return true_scores[first][pair]


def _rows(
  blocks: list[_Block], images: Float[np.ndarray, 'i d'], grouped: Float[np.ndarray, 't d'], chunk: int
) -> Iterator[tuple[int, Float[np.ndarray, 't']]]:
  """Every distinct image with its scores against all texts: own scores taken over, the others computed here.

  A row is a view of one buffer: it may be written to, and is gone after the block. `blocks` is emptied on the way.
  """
  buffer = np.empty((min(chunk, len(images)), len(grouped)), dtype=images.dtype)
  while blocks:
    block = blocks.pop(0)
    rows, scores = images[block.images], buffer[: len(block.images)]
    start, stop = block.texts.start, block.texts.stop
    np.matmul(rows, grouped[:start].T, out=scores[:, :start])
    scores[:, start:stop] = block.own_scores
    np.matmul(rows, grouped[stop:].T, out=scores[:, stop:])
    yield from zip(block.images.tolist(), scores, strict=True)
