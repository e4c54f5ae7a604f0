"""Images that a person has as arrays."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from hrem_jax.errors import UserError


class Regions:
  """Arrays in memory as `DataEncoder` reads images; the arguments are those of `Matcher.encode_images`."""

  def __init__(self, regions, mask: np.ndarray | None, *, region_size: int):
    is_list = isinstance(regions, Sequence)
    if not is_list and np.ndim(regions) == 0:
      shapes = f'one array (images, regions, {region_size}) or a list of arrays (regions, {region_size})'
      raise UserError(f'encode_images wants {shapes}, found {type(regions).__name__}')
    if mask is not None:
      if is_list:
        raise UserError('a mask is for one array: leave it out with a list, whose arrays hold real regions only')
      mask = np.asarray(mask)
      if mask.dtype != bool or mask.shape != np.shape(regions)[:2]:
        raise UserError(f'mask is {mask.dtype} {mask.shape}, expected bool {np.shape(regions)[:2]}')
    # One list of real regions per image: padding is made per chunk, and junk in it never reaches the encoder.
    images = [np.asarray(image) for image in regions]
    self._images = images if mask is None else [image[real] for image, real in zip(images, mask, strict=True)]
    for index, image in enumerate(self._images):
      if image.ndim != 2 or image.shape[1] != region_size or not len(image):
        raise UserError(f'image {index} has shape {image.shape}, expected (regions, {region_size}) with real regions')
      if not np.issubdtype(image.dtype, np.floating) and image.dtype != np.uint8:
        raise UserError(f'image {index} is {image.dtype}, expected floats')
      if not np.isfinite(image).all():
        raise UserError(f'image {index} holds NaN or infinity')
    self._width = max(map(len, self._images), default=0)
    self._size = region_size

  def check_counts(self, count: int) -> None:
    """Raises UserError where an image has not `count` regions: a vision tower looks at whole pictures."""
    for index, image in enumerate(self._images):
      if len(image) != count:
        raise UserError(f'image {index} has {len(image)} regions, expected the {count} patches of a picture')

  def add_embeddings(self, embeddings, size: int | None) -> None:
    """The images' own embeddings of `size`; raises UserError where they are not wanted (None), missing or wrong."""
    if size is None:
      raise UserError("embeddings are for a run of config.model.start='zero_shot' on features; this one takes none")
    wanted = f'embeddings of the images by the encoder of their regions, ({len(self)}, {size})'
    if embeddings is None:
      raise UserError(f'this run begins with what the encoder of its features says of an image: expected {wanted}')
    embeddings = np.asarray(embeddings)
    if embeddings.shape != (len(self), size) or not np.issubdtype(embeddings.dtype, np.floating):
      raise UserError(f'embeddings are {embeddings.dtype} {embeddings.shape}, expected floats: {wanted}')
    if not np.isfinite(embeddings).all():
      raise UserError('embeddings hold NaN or infinity')
    self._embeddings = embeddings.astype(np.float32)

  def __len__(self) -> int:
    return len(self._images)

  def extra(self, name: str, index: Int[np.ndarray, ' b']) -> Float[np.ndarray, 'b d']:
    return {'embeddings': self._embeddings}[name][index]

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[np.ndarray, np.ndarray]:
    images = [self._images[row] for row in index]
    mask = np.arange(self._width) < np.array([[len(image)] for image in images])
    regions = np.zeros((*mask.shape, self._size), np.float32)
    regions[mask] = np.concatenate(images)
    return regions, mask
