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
from hrem_jax.retrieval.encode import TextBlock
from hrem_jax.retrieval.score_file import ScoreFile
from hrem_jax.retrieval.scores import MatrixScores
from hrem_jax.sharding import replicate, replicated, split_rows, split_whole

MOST_IMAGES = 512  # of a block: beyond it a device is busy anyway


def pair_scores(
  method: Method,
  variables: dict,
  images: Encoded,
  texts: Sequence[TextBlock],
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
    texts: Likewise; every text once: who has equal captions takes its column several times.
    store: A folder for this very matrix; with several processes one that all share. None: a temporary file.
    memory_mb: Most that a block takes on the devices of this process, together; images per block follow from it, at
      least one per device.

  Returns:
    Scores of images and texts by their numbers.

  Raises:
    FloatingPointError: A score is NaN or infinite.
    UserError: The method has a matrix for each direction.
  """
  num_images = len(jax.tree.leaves(images)[0])
  captions = np.concatenate([block.captions for block in texts])
  bounds = np.cumsum([0, *(len(block.captions) for block in texts)])
  is_writer = store is None or jax.process_index() == 0
  file = ScoreFile(store, num_images, bounds) if is_writer else None
  is_left = _agreed(~file.is_written() if file else np.zeros((num_images, len(texts)), bool))
  if is_left.any():
    size = _images_at_once(method, mesh, variables, images, texts, memory_mb)
    for block in _with_bar(_blocks(method, mesh, variables, images, texts, is_left, size)):
      scores = block.scores[:, : len(texts[block.part].captions)]
      _check_finite(scores, block.rows, texts[block.part].captions)
      if file:
        file.write(block.rows, block.part, scores)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('all scores are written')
  file = file or ScoreFile(store, num_images, bounds)
  return MatrixScores(file.matrix, texts=np.argsort(captions))


class _Block(NamedTuple):
  rows: slice  # of the images
  part: int  # which block of texts
  scores: Float[np.ndarray, 'b c']  # padding of texts included
  num_left: int  # blocks after this one


def _blocks(
  method: Method,
  mesh: Mesh,
  variables: dict,
  images: Encoded,
  texts: Sequence[TextBlock],
  is_left: Bool[np.ndarray, 'i p'],
  size: int,
) -> Iterator[_Block]:
  """The blocks in which something is left, one after the other: images in the outer loop stay on the devices."""
  slices = [slice(start, min(start + size, len(is_left))) for start in range(0, len(is_left), size)]
  todo = [(rows, part) for rows in slices for part in range(len(texts)) if is_left[rows, part].any()]
  here, on_device, waiting = None, None, []

  def fetched(rows: slice, part: int, scores: jax.Array, num_left: int) -> _Block:
    return _Block(rows, part, np.asarray(scores)[0, : rows.stop - rows.start], num_left)

  for number, (rows, part) in enumerate(todo, start=1):
    if rows != here:
      here, on_device = rows, split_whole(_rows(images, rows.start, size), mesh)
    arguments = variables, on_device, replicate(texts[part].encoded, mesh)
    waiting.append((rows, part, _program(method, mesh, _Shapes.of(arguments))(*arguments), len(todo) - number))
    # One block is copied to and fro while the device works on another.
    if len(waiting) > 1:
      yield fetched(*waiting.pop(0))
  for block in waiting:
    yield fetched(*block)


def _rows(images: Encoded, start: int, size: int) -> Encoded:
  """So many images from `start` on; behind the last one it is repeated."""
  return jax.tree.map(lambda rows: rows[np.minimum(np.arange(start, start + size), len(rows) - 1)], images)


def _images_at_once(
  method: Method, mesh: Mesh, variables: dict, images: Encoded, texts: Sequence[TextBlock], memory_mb: float
) -> int:
  """Images per block: as many as memory allows beside the widest texts, by what the compiler says that it takes."""
  num_images, size = len(jax.tree.leaves(images)[0]), mesh.size
  while size < num_images and 2 * size <= MOST_IMAGES:
    size *= 2
  widest = max((block.encoded for block in texts), key=lambda block: sum(x.nbytes for x in jax.tree.leaves(block)))
  while True:
    shapes = _Shapes.of((variables, jax.eval_shape(lambda: _rows(images, 0, size)), widest))
    memory = _program(method, mesh, shapes).memory_analysis()
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


def _with_bar(blocks: Iterator[_Block]) -> Iterator[_Block]:
  """The same blocks with a bar on a terminal."""
  with tqdm.tqdm(
    desc='scores', unit='block', leave=False, dynamic_ncols=True, disable=jax.process_index() > 0 or not sys.stderr.isatty()
  ) as bar:
    for block in blocks:
      yield block
      bar.total = bar.n + 1 + block.num_left
      bar.update()


def _check_finite(scores: Float[np.ndarray, 'b c'], rows: slice, captions: Int[np.ndarray, ' c']) -> None:
  if not np.isfinite(scores).all():
    image, text = np.argwhere(~np.isfinite(scores))[0]
    raise FloatingPointError(f'the score of image {rows.start + image} and text {captions[text]} is NaN or infinite')
