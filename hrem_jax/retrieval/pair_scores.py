"""Scores of all images with all texts by a method that needs the fragments of both: in blocks, on all devices."""

import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from hrem_jax.errors import UserError
from hrem_jax.methods.method import Method
from hrem_jax.models.encoded import Encoded
from hrem_jax.retrieval.encode import TextBlock, num_instances
from hrem_jax.retrieval.score_file import ScoreFile
from hrem_jax.retrieval.scores import MatrixScores
from hrem_jax.sharding import replicate, replicated, split_rows, split_whole

MOST_IMAGES = 512  # of a block: beyond it a device is busy anyway


def pair_scores(
  method: Method,
  variables: dict,
  images: Encoded,
  texts: Sequence[TextBlock],
  first_equal: Int[np.ndarray, ' t'],
  mesh: Mesh,
  *,
  store: pathlib.Path | None = None,
  memory_mb: float,
) -> MatrixScores:
  """Every image with every text, in blocks of fixed shapes: one program for each width of a text.

  Called again with the same `store` it goes on behind the blocks that are there.

  Args:
    variables: On all devices of `mesh`.
    images: Host arrays, as from `DataEncoder`; a block of images is split over the devices.
    texts: Likewise; of equal texts the first alone, so that they tie.
    first_equal: For each text the first one that equals it, which stands in a block under this number.
    store: A folder for this very matrix; with several processes one that all share. None: a temporary file.
    memory_mb: Most that a block takes on the devices of this process, together; images per block follow from it, at
      least one per device.

  Returns:
    Scores of the images, in their order, with the texts of `first_equal`.

  Raises:
    FloatingPointError: A score is NaN or infinite.
    UserError: The method has a matrix for each direction.
  """
  num_images, captions = num_instances(images), np.concatenate([block.captions for block in texts])
  bounds = np.cumsum([0, *(len(block.captions) for block in texts)])
  is_writer = store is None or jax.process_index() == 0
  file = ScoreFile(store, num_images, bounds) if is_writer else None
  is_left = _agreed(~file.is_written() if file else np.zeros((num_images, len(texts)), bool))
  if is_left.any():
    blocks = _Blocks(method, variables, images, texts, mesh, is_left, memory_mb)
    for rows, part, scores in tqdm.tqdm(blocks, 'scores', leave=False, dynamic_ncols=True, disable=not _has_terminal()):
      _check_finite(scores, rows, texts[part].captions)
      if file:
        file.write(rows, part, scores)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('all scores are written')
  file = file or ScoreFile(store, num_images, bounds)
  column_of = dict(zip(captions.tolist(), range(len(captions)), strict=True))
  return MatrixScores(file.matrix, texts=np.array([column_of[text] for text in first_equal.tolist()]))


class _Blocks:
  """The blocks in which something is left, one after the other: rows of images, block of texts, scores `[b, c]`."""

  def __init__(
    self,
    method: Method,
    variables: dict,
    images: Encoded,
    texts: Sequence[TextBlock],
    mesh: Mesh,
    is_left: Bool[np.ndarray, 'i p'],
    memory_mb: float,
  ):
    self._method, self._variables, self._images, self._texts, self._mesh = method, variables, images, texts, mesh
    self._size = _images_at_once(method, mesh, variables, images, texts, memory_mb)
    slices = (slice(start, min(start + self._size, len(is_left))) for start in range(0, len(is_left), self._size))
    self._todo = [(rows, part) for rows in slices for part in range(len(texts)) if is_left[rows, part].any()]

  def __len__(self) -> int:
    return len(self._todo)

  def __iter__(self) -> Iterator[tuple[slice, int, Float[np.ndarray, 'b c']]]:
    here, on_device, waiting = None, None, []
    for rows, part in self._todo:
      if rows != here:  # the outer loop: these images stay on the devices
        here, on_device = rows, split_whole(_rows(self._images, rows.start, self._size), self._mesh)
      arguments = self._variables, on_device, replicate(self._texts[part].encoded, self._mesh)
      waiting.append((rows, part, _program(self._method, self._mesh, _Shapes.of(arguments))(*arguments)))
      # One block is copied to and fro while the devices work on another.
      if len(waiting) > 1:
        yield self._fetched(*waiting.pop(0))
    for block in waiting:
      yield self._fetched(*block)

  def _fetched(self, rows: slice, part: int, scores: jax.Array) -> tuple[slice, int, Float[np.ndarray, 'b c']]:
    """Without padding."""
    return rows, part, np.asarray(scores)[0, : rows.stop - rows.start, : len(self._texts[part].captions)]


def _rows(images: Encoded, start: int, size: int) -> Encoded:
  """So many images from `start` on; behind the last one it is repeated."""
  return jax.tree.map(lambda rows: rows[np.minimum(np.arange(start, start + size), len(rows) - 1)], images)


def _images_at_once(
  method: Method, mesh: Mesh, variables: dict, images: Encoded, texts: Sequence[TextBlock], memory_mb: float
) -> int:
  """Images per block: as many as memory allows beside the widest texts, by what the compiler says that it takes."""
  num_images, size = num_instances(images), mesh.size
  while size < num_images and 2 * size <= MOST_IMAGES:
    size *= 2
  widest = max((block.encoded for block in texts), key=lambda block: sum(x.nbytes for x in jax.tree.leaves(block)))
  while True:
    memory = _program(method, mesh, _Shapes.of((variables, _rows(images, 0, size), widest))).memory_analysis()
    per_device = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    if size == mesh.size or per_device * jax.local_device_count() <= 1e6 * memory_mb:
      return size
    size //= 2


class _Shapes(NamedTuple):
  """Of a tree of arrays; it can be a key."""

  structure: jax.tree_util.PyTreeDef
  leaves: tuple[jax.ShapeDtypeStruct, ...]

  @classmethod
  def of(cls, tree) -> '_Shapes':
    leaves, structure = jax.tree.flatten(tree)
    return cls(structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves))


@functools.lru_cache(maxsize=64)
def _program(method: Method, mesh: Mesh, shapes: _Shapes) -> Callable:
  """From variables, images and texts to their scores `[1, i, t]`; compiled once for every shape."""

  def score(variables: dict, images: Encoded, texts: Encoded) -> jax.Array:
    scores = method.apply(variables, images, texts, method='score')
    if len(scores) != 1:
      raise UserError(
        f'{type(method).__name__} scores each direction in its own way ({len(scores)} matrices); evaluation takes one'
      )
    return scores.astype(np.float32)

  shardings = replicated(mesh), split_rows(mesh), replicated(mesh)
  compiled = jax.jit(score, in_shardings=shardings, out_shardings=replicated(mesh))
  return compiled.lower(*jax.tree.unflatten(*shapes)).compile()


def _agreed(is_left: Bool[np.ndarray, 'i p']) -> Bool[np.ndarray, 'i p']:
  """What process 0 knows."""
  return is_left if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(is_left))


def _has_terminal() -> bool:
  return jax.process_index() == 0 and sys.stderr.isatty()


def _check_finite(scores: Float[np.ndarray, 'b c'], rows: slice, captions: Int[np.ndarray, ' c']) -> None:
  if not np.isfinite(scores).all():
    image, text = np.argwhere(~np.isfinite(scores))[0]
    raise FloatingPointError(f'the score of image {rows.start + image} and text {captions[text]} is NaN or infinite')
