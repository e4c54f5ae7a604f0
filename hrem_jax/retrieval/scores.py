"""The scores of all images of a split with all of its texts, as a value: what every evaluation is a function of.

Where a score comes from is said here and nowhere else: from the dot product of two embeddings (`DotScores`), from a
matrix (`MatrixScores`), from nothing (`ChanceScores`), from several models (`mean_scores`). Everything is on the host.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.files import temporary_array
from hrem_jax.ops.ranking import RankCounter, Ranks, RetrievalRanks, check_owner
from hrem_jax.ops.streamed_ranking import DEFAULT_CHUNK, first_identical, ranks_from_embeddings

ALL = slice(None)
Rows = slice | Int[np.ndarray, ' n'] | Bool[np.ndarray, ' n']
Side = Literal['images', 'texts']  # who asks
Blocks = Iterator[tuple[slice, Float[np.ndarray, 'b c']]]


class Scores(Protocol):
  """Scores of `shape[0]` images with `shape[1]` texts; a higher one is a better match."""

  @property
  def shape(self) -> tuple[int, int]: ...

  def part(self, images: Rows = ALL, texts: Rows = ALL) -> 'Scores':
    """The scores of some images with some texts, in the order that is given: a fold, say."""
    ...

  def ranks(self, owner: Int[np.ndarray, ' t'], *, chunk: int = DEFAULT_CHUNK) -> RetrievalRanks:
    """The counts behind every tie rule; equal captions tie exactly.

    Args:
      owner: Row of each text's image. An image without texts asks no question but stays a candidate for every text.
      chunk: Images at a time.

    Raises:
      FloatingPointError: A score is NaN or infinite.
      ValueError: An owner is no row.
    """
    ...

  def blocks(self, queries: Int[np.ndarray, ' q'], *, side: Side, chunk: int = DEFAULT_CHUNK) -> Blocks:
    """Some queries at a time, which part of `queries` they are, and their scores with all candidates `[b, c]`.

    Args:
      queries: Rows of the images or of the texts.
      side: Which of both they are; the candidates are the others.
      chunk: Queries at a time.

    Raises:
      FloatingPointError: A score is NaN or infinite.
    """
    ...


class DotScores:
  """Dot products of embeddings, one block of them in memory at a time.

  Identical embeddings get identical scores, which a product alone does not promise (`ops.streamed_ranking`).

  Attributes:
    images: One row per image (not one per caption: take every fifth row of a precomputed test file).
    texts: One row per text.
  """

  def __init__(self, images: Float[np.ndarray, 'i d'], texts: Float[np.ndarray, 't d']):
    self.images, self.texts = np.asarray(images), np.asarray(texts)

  @property
  def shape(self) -> tuple[int, int]:
    return len(self.images), len(self.texts)

  def part(self, images: Rows = ALL, texts: Rows = ALL) -> 'DotScores':
    return DotScores(self.images[images], self.texts[texts])

  def ranks(self, owner: Int[np.ndarray, ' t'], *, chunk: int = DEFAULT_CHUNK) -> RetrievalRanks:
    return ranks_from_embeddings(self.images, self.texts, owner, chunk=chunk)

  def blocks(self, queries: Int[np.ndarray, ' q'], *, side: Side, chunk: int = DEFAULT_CHUNK) -> Blocks:
    asking, asked = (self.images, self.texts) if side == 'images' else (self.texts, self.images)
    dtype = np.result_type(asking.dtype, asked.dtype, np.float32)
    distinct, place = np.unique(first_identical(asked), return_inverse=True)
    candidates = asked[distinct].astype(dtype, copy=False).T
    for rows in _slices(len(queries), chunk):
      scores = asking[queries[rows]].astype(dtype, copy=False) @ candidates
      _check_finite(scores, queries[rows], distinct)
      yield rows, scores if len(distinct) == len(asked) else scores[:, place]


class MatrixScores:
  """The scores of a matrix, which may be memory-mapped and is read a few rows at a time.

  Args:
    similarity: Images x texts, compared as the numbers that they are.
    images, texts: The row and the column of each image and text, where these are not all of them in order. Texts of one
      column tie.
  """

  def __init__(self, similarity: Float[np.ndarray, 'i t'], images: Rows = ALL, texts: Rows = ALL):
    self._similarity = similarity
    self._rows, self._columns = (np.arange(n)[of] for n, of in zip(similarity.shape, (images, texts), strict=True))

  @property
  def shape(self) -> tuple[int, int]:
    return len(self._rows), len(self._columns)

  def part(self, images: Rows = ALL, texts: Rows = ALL) -> 'MatrixScores':
    return MatrixScores(self._similarity, self._rows[images], self._columns[texts])

  def ranks(self, owner: Int[np.ndarray, ' t'], *, chunk: int = DEFAULT_CHUNK) -> RetrievalRanks:
    owner = check_owner(owner, *self.shape)
    own = self._as_floats(self._similarity[self._rows[owner], self._columns])
    counter = RankCounter(own, owner, len(self._rows))
    for rows in _slices(len(self._rows), chunk):
      for image, scores in enumerate(self._read(self._rows[rows], self._columns), start=rows.start):
        counter.add(image, scores)
    return counter.ranks()

  def blocks(self, queries: Int[np.ndarray, ' q'], *, side: Side, chunk: int = DEFAULT_CHUNK) -> Blocks:
    for rows in _slices(len(queries), chunk):
      asking = queries[rows]
      if side == 'images':
        scores = self._read(self._rows[asking], self._columns)
      else:
        scores = self._read(self._rows, self._columns[asking]).T
      _check_finite(scores, asking, np.arange(scores.shape[1]))
      yield rows, scores

  def _read(self, rows: Int[np.ndarray, ' b'], columns: Int[np.ndarray, ' c']) -> Float[np.ndarray, 'b c']:
    """Whole rows first where there are few of them, whole columns else: no index of all pairs."""
    if len(rows) * self._similarity.shape[1] <= len(columns) * self._similarity.shape[0]:
      return self._as_floats(self._similarity[rows][:, columns])
    return self._as_floats(self._similarity[:, columns][rows])

  def _as_floats(self, scores: np.ndarray) -> np.ndarray:
    """Of at least float32: half precision compares the same, only slower."""
    return np.asarray(scores, np.result_type(scores.dtype, np.float32))


class ChanceScores:
  """Every pair scores the same: under `expected` ties, what guessing is worth."""

  def __init__(self, shape: tuple[int, int]):
    self.shape = shape

  def part(self, images: Rows = ALL, texts: Rows = ALL) -> 'ChanceScores':
    return ChanceScores(tuple(len(np.arange(n)[of]) for n, of in zip(self.shape, (images, texts), strict=True)))

  def ranks(self, owner: Int[np.ndarray, ' t'], *, chunk: int = DEFAULT_CHUNK) -> RetrievalRanks:
    num_images, num_texts = self.shape
    owner = check_owner(owner, num_images, num_texts)
    owned = np.bincount(owner, minlength=num_images)
    owned = owned[owned > 0]
    one = np.ones_like(owner)
    images = Ranks(np.zeros_like(owned), num_texts - owned, owned)
    return RetrievalRanks(images, Ranks(np.zeros_like(owner), one * (num_images - 1), one))

  def blocks(self, queries: Int[np.ndarray, ' q'], *, side: Side, chunk: int = DEFAULT_CHUNK) -> Blocks:
    num_candidates = self.shape[1 if side == 'images' else 0]
    for rows in _slices(len(queries), chunk):
      yield rows, np.zeros((rows.stop - rows.start, num_candidates), np.float32)


def mean_scores(members: Sequence[Scores]) -> Scores:
  """The mean of the scores of several models: an ensemble (Full* of METHOD section 5); of one, its own.

  The dot product of concatenated embeddings is the sum of the members' dot products: of dots alone no matrix is stored.
  Of others one is, in a temporary file.

  Raises:
    ValueError: The members have not the same images and texts.
  """
  shapes = {member.shape for member in members}
  if len(shapes) != 1:
    raise ValueError(f'the mean of scores of different shapes: {sorted(shapes)}')
  if len(members) == 1:
    return members[0]
  if all(isinstance(member, DotScores) for member in members):
    images = np.concatenate([member.images for member in members], axis=1) / len(members)
    return DotScores(images, np.concatenate([member.texts for member in members], axis=1))
  mean = temporary_array(members[0].shape, np.float32)
  for member in members:
    for rows, scores in member.blocks(np.arange(member.shape[0]), side='images'):
      mean[rows] += scores / len(members)
  return MatrixScores(mean)


def _slices(count: int, chunk: int) -> Iterator[slice]:
  return (slice(start, min(start + chunk, count)) for start in range(0, count, chunk))


def _check_finite(
  scores: Float[np.ndarray, 'b c'], queries: Int[np.ndarray, ' b'], candidates: Int[np.ndarray, ' c']
) -> None:
  if not np.isfinite(scores).all():
    row, column = np.argwhere(~np.isfinite(scores))[0]
    raise FloatingPointError(f'the score of query {queries[row]} and candidate {candidates[column]} is NaN or infinite')
