"""Which pictures are the same to the eye: copies, other sizes, other compressions."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Int, UInt8
from PIL import Image

SIDE = 16  # of the difference hash: 256 bits
HASH_BYTES, COLOUR_BYTES = SIDE * SIDE // 8, 4 * 4 * 3
SIGNATURE_BYTES = HASH_BYTES + COLOUR_BYTES
MAX_BITS = 15  # that differ between pictures which look alike: fewer than there are bands
BAND_BYTES = 2
MAX_COLOUR = 24  # of 255, in each of the 4 x 4 mean colours
MIN_STEP = 2  # of 255, in brightness: less is the noise of a compression


def signature(picture: Image.Image) -> bytes:
  """A difference hash (does it become brighter to the right?) and the mean colours of 4 x 4 fields.

  Args:
    picture: RGB.
  """
  small = picture.reduce(max(1, min(picture.size) // 256))  # a tenth of the time for a camera's picture
  # As floats: rounded to 8 bits, one bit in thirty turns over when a picture is made smaller.
  brightness = small.convert('L').convert('F').resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR)
  is_brighter = np.diff(np.asarray(brightness), axis=1) > MIN_STEP
  colours = np.asarray(small.resize((4, 4), Image.Resampling.BOX))
  return np.packbits(is_brighter).tobytes() + colours.tobytes()


def look_alike(signatures: UInt8[np.ndarray, 'n s']) -> Int[np.ndarray, ' n']:
  """A number for each picture, equal for those that look alike, directly or over others.

  Exact and without comparing all pairs: of as many bands of the hash as there are, one is equal where fewer bits
  differ than there are bands, so only pictures with an equal band are compared.

  Args:
    signatures: Bytes of `signature`.
  """
  unique, where = np.unique(signatures, axis=0, return_inverse=True)
  pairs = [pair for band in range(0, HASH_BYTES, BAND_BYTES) for pair in _pairs_of_band(unique, band)]
  one, other = np.concatenate([np.zeros((2, 0), int), *pairs], axis=1)
  graph = scipy.sparse.coo_matrix((np.ones(len(one)), (one, other)), shape=(len(unique),) * 2)
  return scipy.sparse.csgraph.connected_components(graph, directed=False)[1][where.reshape(-1)]


def _pairs_of_band(signatures: UInt8[np.ndarray, 'n s'], start: int) -> Iterator[Int[np.ndarray, '2 p']]:
  """Pairs that look alike among those whose band is equal."""
  band = np.ascontiguousarray(signatures[:, start : start + BAND_BYTES]).view(f'u{BAND_BYTES}').reshape(-1)
  order = np.argsort(band, kind='stable')
  band, distance = band[order], 1
  while True:  # neighbours in the order, then those two apart, until no band is as long
    same = np.flatnonzero(band[distance:] == band[:-distance])
    if not len(same):
      return
    one, other = order[same], order[same + distance]
    near = are_near(signatures[one], signatures[other])
    yield np.stack([one[near], other[near]])
    distance += 1


def are_near(one: UInt8[np.ndarray, 'p s'], other: UInt8[np.ndarray, 'p s']) -> Bool[np.ndarray, ' p']:
  """Whether few bits of the hashes differ, and no mean colour by much."""
  bits = np.bitwise_count(one[:, :HASH_BYTES] ^ other[:, :HASH_BYTES]).sum(axis=1, dtype=np.int64)
  colours = np.abs(one[:, HASH_BYTES:].astype(np.int16) - other[:, HASH_BYTES:]).max(axis=1)
  return (bits <= MAX_BITS) & (colours <= MAX_COLOUR)
