"""Images whose features lie far outside those of the others: a broken extraction, of which no number need be NaN."""

import numpy as np
from jaxtyping import Bool, Float

from hrem_jax.data.precomputed import Split

FAR = 100.0  # times the median image's largest value
HUGE = 1e15  # its square, times a layer's width, is near the end of float32
_LOOKED_AT = 2**28  # bytes of features that the start of a training reads for it
_CHUNK = 64


def largest_values(regions: Float[np.ndarray, 'n r f'], is_real: Bool[np.ndarray, 'n r']) -> Float[np.ndarray, ' n']:
  """The largest absolute value in the real regions of each image; 0 where none is real."""
  largest = np.abs(regions).max(axis=2, initial=0).astype(np.float64)
  return np.where(is_real, largest, 0).max(axis=1, initial=0)


def far_outside(largest: Float[np.ndarray, ' n']) -> Bool[np.ndarray, ' n']:
  """Which of the largest values of images are more than `FAR` times their median, or too large to compute with."""
  median = float(np.median(largest)) if largest.size else 0.0
  return largest > (min(FAR * median, HUGE) if median else HUGE)


def describe_far(where: str, value: float, largest: Float[np.ndarray, ' n']) -> str:
  """A sentence about one of them."""
  return f'{where} has values up to {value:.3g}, far outside the others (median {np.median(largest):.3g})'


def warnings_of(split: Split, *, shown: int = 5) -> list[str]:
  """What a person should know of the features of a split before it is trained on; of many images a part is read."""
  features = split.features
  row_bytes = features.max_regions * features.region_size * features.dtype.itemsize
  count = min(len(features), max(_LOOKED_AT // row_bytes, 1))
  rows = np.linspace(0, len(features) - 1, count).astype(int)
  chunks = [rows[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
  largest = np.concatenate([largest_values(*features.rows(chunk)) for chunk in chunks])
  found = np.flatnonzero(far_outside(largest))
  lines = [
    describe_far(f'{features.path}: image {split.ids[rows[index]]!r} of {split.name}', largest[index], largest)
    for index in found[:shown]
  ]
  return lines + ([f'{features.path}: and {len(found) - shown} images more'] if len(found) > shown else [])
