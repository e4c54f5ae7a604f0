"""Pictures decoded by threads, encoded in batches of one shape, and kept chunk by chunk."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import FULL_SIZE, UnreadablePicture, open_picture
from hrem_jax.extraction.lookalikes import signature
from hrem_jax.extraction.picture_encoders import PictureEncoder
from hrem_jax.extraction.records import Record
from hrem_jax.extraction.workshop import Workshop
from hrem_jax.files import replacing
from hrem_jax.ops.grids import pool_grid

FEATURES, EMBEDDINGS = 'features.float16', 'embeddings.float32'
_AHEAD = 2  # chunks that are decoded while one is encoded
_QUALITY = 85  # of the small pictures


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the arrays of a data set measure."""

  grid: tuple[int, int]
  pooled: tuple[int, int]
  features: int
  embedding: int | None
  chunk: int  # pictures in a batch

  @property
  def regions(self) -> int:
    return self.pooled[0] * self.pooled[1]

  def row_bytes(self) -> dict[str, int]:
    """Of a chunk in each file."""
    sizes = {FEATURES: self.chunk * self.regions * self.features * 2}
    return sizes | ({EMBEDDINGS: self.chunk * self.embedding * 4} if self.embedding else {})


def pooled_grid(grid: tuple[int, int], num_regions: int | None) -> tuple[int, int]:
  """Rows and columns of the regions: a grid of more than 8 x 8 is pooled 2 x 2 where nothing is asked for.

  Raises:
    UserError: No rows and columns give so many regions.
  """
  rows, columns = grid
  if num_regions is None:
    return (-(-rows // 2), -(-columns // 2)) if max(grid) > 8 else grid
  possible = {r * c: (r, c) for r in range(1, rows + 1) for c in range(1, columns + 1) if r * columns == c * rows}
  if num_regions not in possible:
    raise UserError(
      f'--regions {num_regions}: the grid of {rows} x {columns} cells gives {", ".join(map(str, sorted(possible)))}'
    )
  return possible[num_regions]


def measure(encoder: PictureEncoder, num_regions: int | None, chunk: int) -> Sizes:
  """The sizes that an encoder will give; nothing is computed."""
  pixels = jax.ShapeDtypeStruct((chunk, *_pixels_of_blank(encoder).shape), np.float32)
  features = jax.eval_shape(encoder.module.apply, encoder.variables, pixels)
  _, rows, columns, size = features.patches.shape
  embedding = None if features.embedding is None else features.embedding.shape[1]
  return Sizes((rows, columns), pooled_grid((rows, columns), num_regions), size, embedding, chunk)


def _pixels_of_blank(encoder: PictureEncoder) -> Float[np.ndarray, 'h w 3']:
  return encoder.preprocessing(Image.new('RGB', (64, 64)))


class PictureReader:
  """What a thread does with a picture: everything that needs its full size.

  Args:
    encoder: Its preprocessing makes the pixels.
    folder: Gets the small picture `ID.jpg`.
    size: Pixels of its longer side at most; 0 for no small pictures.
  """

  def __init__(self, encoder: PictureEncoder, folder: pathlib.Path, size: int):
    self._preprocessing, self._folder, self._size = encoder.preprocessing, folder, size

  def __call__(self, record: Record, picture_id: str) -> tuple[dict, Float[np.ndarray, 'h w 3'] | None]:
    """What the journal keeps of it, and its pixels; of an unreadable one the reason, and None."""
    try:
      with open_picture(record.path) as (picture, digest):
        pixels = np.asarray(self._preprocessing(picture), np.float32)
        outcome = {'size': list(picture.size), 'sha256': digest, 'signature': signature(picture).hex()}
        if full_size := picture.info.get(FULL_SIZE):
          outcome['reduced_from'] = list(full_size)
    except UnreadablePicture as error:
      return {'problem': str(error)}, None
    if self._size:
      self._save_small(picture, self._folder / f'{picture_id}.jpg')
    return outcome, pixels

  def _save_small(self, picture: Image.Image, path: pathlib.Path) -> None:
    picture.thumbnail((self._size, self._size), Image.Resampling.LANCZOS)
    with replacing(path) as temporary:
      picture.save(temporary, 'JPEG', quality=_QUALITY)


def encode_missing(
  records: Sequence[Record],
  ids: Sequence[str],
  encoder: PictureEncoder,
  sizes: Sizes,
  workshop: Workshop,
  read: PictureReader,
  done: Callable[[int], None] = lambda count: None,
) -> None:
  """Encodes all chunks that the workshop does not have.

  A chunk has always the same members at the same places, unreadable ones as zeros: the result of a picture does not
  depend on where a stop came.

  Args:
    records, ids: All pictures.
    encoder: Gives patches, and an embedding if `sizes` says so.
    sizes: Of `measure`.
    workshop: Gets the chunks.
    read: Run by threads.
    done: Is told how many pictures have been done since it was last told.

  Raises:
    UserError: The encoder gives what is not finite or does not fit float16.
  """
  encode = jax.jit(lambda variables, pixels: encode_pixels(encoder, variables, pixels, sizes.pooled))
  variables = jax.device_put(encoder.variables)
  blank = np.zeros((sizes.chunk, *_pixels_of_blank(encoder).shape), np.float32)
  waiting = None
  chunks = _read_ahead(records, ids, sizes.chunk, len(workshop.outcomes), read)
  with warnings.catch_warnings(), contextlib.closing(chunks):
    warnings.filterwarnings('ignore', module='PIL')  # of odd files, which are read or listed
    for start, readings in chunks:
      pixels = blank.copy()
      for row, (_, its_pixels) in enumerate(readings):
        if its_pixels is not None:
          pixels[row] = its_pixels
      encoded = encode(variables, pixels), [outcome for outcome, _ in readings], start
      if waiting:  # the device works on this chunk while the one before is written
        done(_keep(workshop, records, *waiting))
      waiting = encoded
    if waiting:
      done(_keep(workshop, records, *waiting))


def encode_pixels(
  encoder: PictureEncoder, variables: dict, pixels: Float[jax.Array, 'b h w 3'], pooled: tuple[int, int]
) -> tuple[Float[jax.Array, 'b r f'], Float[jax.Array, 'b e'] | None]:
  """The regions of pictures and, if the encoder gives any, their embeddings, both in float32."""
  features = encoder.module.apply(variables, pixels)
  regions = pool_grid(features.patches.astype(np.float32), pooled)
  return regions, None if features.embedding is None else features.embedding.astype(np.float32)


def _keep(workshop: Workshop, records: Sequence[Record], encoded: tuple, outcomes: list[dict], start: int) -> int:
  """Writes a chunk; returns how many pictures it has."""
  named = zip((FEATURES, EMBEDDINGS), encoded, strict=True)
  arrays = {name: np.asarray(array) for name, array in named if array is not None}
  with np.errstate(over='ignore'):
    arrays[FEATURES] = arrays[FEATURES].astype(np.float16)
  for name, array in arrays.items():
    is_finite = np.isfinite(array[: len(outcomes)]).reshape(len(outcomes), -1).all(axis=1)
    wrong = [i for i, outcome in enumerate(outcomes) if 'problem' not in outcome and not is_finite[i]]
    if wrong:
      what = f'{name.removesuffix(".float16").removesuffix(".float32")} that are not finite as {array.dtype}'
      raise UserError(f'{records[start + wrong[0]].name}: the encoder gives {what}; are its weights whole?')
  workshop.add(arrays, outcomes)
  return len(outcomes)


def _read_ahead(
  records: Sequence[Record], ids: Sequence[str], chunk: int, num_done: int, read: PictureReader
) -> Iterator[tuple[int, list]]:
  """The first picture of each chunk that is not done, and what was read of all of it, in order."""
  starts = iter(range(num_done * chunk, len(records), chunk))
  pending: collections.deque = collections.deque()
  executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
  try:
    while True:
      while len(pending) <= _AHEAD and (start := next(starts, None)) is not None:
        members = range(start, min(start + chunk, len(records)))
        pending.append((start, [executor.submit(read, records[i], ids[i]) for i in members]))
      if not pending:
        return
      start, futures = pending.popleft()
      yield start, [future.result() for future in futures]
  finally:
    executor.shutdown(cancel_futures=True)
