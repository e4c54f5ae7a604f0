"""The files of a finished data set, in the precomputed layout (docs/data.md)."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from hrem_jax.data.precomputed import GALLERY
from hrem_jax.extraction.encoding import EMBEDDINGS, FEATURES, Sizes
from hrem_jax.extraction.workshop import Workshop
from hrem_jax.ops.grids import pool_boxes

_ROWS = 256  # that are copied at a time
# Anything in the picture's size and the encoder's grid to the box of each cell.
GridBoxes = Callable[[tuple[int, int], tuple[int, int]], Float[np.ndarray, 'cells 4']]


@dataclasses.dataclass(frozen=True)
class SplitPictures:
  """The pictures of one split, in the order of the source."""

  name: str
  rows: Int[np.ndarray, ' n']  # in the files of the workshop
  ids: list[str]
  captions: list[tuple[str, ...]]
  sizes: list[tuple[int, int]]  # width and height in pixels

  @property
  def num_captions(self) -> int:
    return sum(map(len, self.captions))


def write_split(workshop: Workshop, split: SplitPictures, sizes: Sizes, grid_boxes: GridBoxes) -> None:
  """Writes `SPLIT_ims.npy`, `_boxes.npy`, `_ids.txt`, `_caps.txt` (not of a gallery) and maybe `_embeddings.npy`.

  Args:
    workshop: Has all features; gets the files in its `result`.
    split: Of which there is at least one picture.
    sizes: Of the arrays.
    grid_boxes: `x0 y0 x1 y1` of the cells as fractions of a picture of some size.
  """
  prefix = str(workshop.result / split.name)
  num_rows = -(-workshop.path(FEATURES).stat().st_size // (sizes.regions * sizes.features * 2))
  features = np.memmap(workshop.path(FEATURES), np.float16, 'r', shape=(num_rows, sizes.regions, sizes.features))
  write_rows(pathlib.Path(f'{prefix}_ims.npy'), features, split.rows)
  if sizes.embedding:
    embeddings = np.memmap(workshop.path(EMBEDDINGS), np.float32, 'r', shape=(num_rows, sizes.embedding))
    write_rows(pathlib.Path(f'{prefix}_embeddings.npy'), embeddings, split.rows)
  boxes_of = functools.cache(lambda size: pool_boxes(grid_boxes(size, sizes.grid), sizes.grid, sizes.pooled))
  boxes = np.stack([boxes_of(size) for size in split.sizes]).astype(np.float32)
  write_rows(pathlib.Path(f'{prefix}_boxes.npy'), boxes, np.arange(len(boxes)))
  if split.name == GALLERY:
    write_lines(pathlib.Path(f'{prefix}_ids.txt'), split.ids)
    return
  write_lines(pathlib.Path(f'{prefix}_caps.txt'), (text for texts in split.captions for text in texts))
  repeated = (i for i, texts in zip(split.ids, split.captions, strict=True) for _ in texts)
  write_lines(pathlib.Path(f'{prefix}_ids.txt'), repeated)


def write_rows(path: pathlib.Path, array: Float[np.ndarray, 'n ...'], rows: Sequence[int]) -> None:
  """Some rows of an array as a `.npy` file, a few at a time, and on the disk when it returns."""
  with path.open('wb') as file:
    header = {'descr': array.dtype.str, 'fortran_order': False, 'shape': (len(rows), *array.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)
    for start in range(0, len(rows), _ROWS):
      file.write(np.ascontiguousarray(array[rows[start : start + _ROWS]]).data.cast('B'))
    file.flush()
    os.fsync(file.fileno())


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
  with path.open('w', encoding='utf-8', newline='\n') as file:
    file.writelines(f'{line}\n' for line in lines)
    file.flush()
    os.fsync(file.fileno())
