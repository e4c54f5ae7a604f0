"""The user's door: a trained run that encodes one's own regions and sentences (`hrem_jax.restore`)."""

import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from hrem_jax.data.pipeline import Images
from hrem_jax.data.precomputed import Split, load_split
from hrem_jax.data.tokenizer import tokenize
from hrem_jax.errors import UserError
from hrem_jax.retrieval.protocols import Metrics
from hrem_jax.retrieval.run import Evaluator, Run, load_best


class Matcher:
  """Two encoders with their weights, on all devices of this process's mesh, whatever devices wrote the checkpoint.

  Embeddings are unit-norm float32 NumPy arrays, row for row in the order of what was given; the similarity of an image
  and a text is their dot product.

  Attributes:
    config: The configuration of the run.
    step: Of the checkpoint.
    variables: `{'params', 'batch_stats'}` on the devices, for `model.apply`.
    model: The Linen module.
  """

  def __init__(self, run: Run, variables: dict, step: int, mesh: Mesh):
    self.config: ml_collections.ConfigDict = run.config
    self.variables, self.step = variables, step
    self.model, self.tokenizer = run.model, run.tokenizer
    self._evaluator = Evaluator(run, mesh)

  @property
  def embedding_size(self) -> int:
    return self.config.model.embedding_size

  def encode_images(
    self,
    regions: Float[np.ndarray, 'i r f'] | Sequence[Float[np.ndarray, '_ f']],
    mask: Bool[np.ndarray, 'i r'] | None = None,
  ) -> Float[np.ndarray, 'i d']:
    """Embeddings of images.

    Args:
      regions: One array, or a list of arrays `[regions, features]` with different numbers of regions.
      mask: True for real regions; all are without it. Not with a list.

    Raises:
      UserError: A shape or type is wrong, an image has no real region or one that is NaN or infinite, or a mask came
        with a list.
    """
    features = _Regions(regions, mask, region_size=self.config.model.region_size)
    if not len(features):
      return np.zeros((0, self.embedding_size), np.float32)
    return self.encode_rows(features)

  def encode_rows(self, images: Images) -> Float[np.ndarray, 'i d']:
    """Embeddings of images, at least one, that are read a few rows at a time."""
    return self._evaluator.encoder.encode_images(self.variables, images)

  def encode_texts(self, texts: Sequence[str], *, few_widths: bool = False) -> Float[np.ndarray, 't d']:
    """Embeddings of sentences; a very long one is cut to the widest of `config.data.length_buckets`.

    Args:
      texts: A list of them.
      few_widths: For those who ask one at a time: padded to one of the buckets, so that a program is compiled for each
        of these, and not for every length.

    Raises:
      UserError: `texts` is no list (one string, say), or holds something else than strings.
    """
    texts = _sentences(texts)
    if not texts:
      return np.zeros((0, self.embedding_size), np.float32)
    return self._evaluator.embed_texts(self.variables, texts, tokenize, few_widths=few_widths)

  def similarity(self, images, texts: Sequence[str]) -> Float[np.ndarray, 'i t']:
    """Cosines of images (as for `encode_images`) and sentences."""
    return self.encode_images(images) @ self.encode_texts(texts).T

  def evaluate(self, data: Split | str | pathlib.Path, split: str = 'test', *, protocol: str = 'all') -> Metrics:
    """Recall metrics on a data set.

    Args:
      data: A split, or a folder in the precomputed layout (docs/data.md), for example `data/f30k_precomp`.
      split: Which split of the folder.
      protocol: `all` or `coco` (see `hrem_jax.retrieval.protocols.evaluate`).
    """
    if not isinstance(data, Split):
      data = load_split(pathlib.Path(data).expanduser(), split)
    data.check_region_size(self.config.model.region_size, 'the model was trained on ')
    return self._evaluator.evaluate(self.variables, data, protocol=protocol)


def restore(workdir: str | pathlib.Path, *, step: int | None = None) -> Matcher:
  """The matcher of a trained (or converted) workdir.

  Args:
    workdir: That of a training, or of `python -m hrem_jax convert`.
    step: Of a checkpoint that is kept; None is the best one on the selection split.

  Raises:
    UserError: There is no such workdir or checkpoint.
  """
  workdir = pathlib.Path(workdir).expanduser()
  return Matcher(*load_best(workdir, step=step))


class _Regions:
  """Arrays in memory as `DataEncoder` reads images."""

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
      if not np.issubdtype(image.dtype, np.floating):
        raise UserError(f'image {index} is {image.dtype}, expected floats')
      if not np.isfinite(image).all():
        raise UserError(f'image {index} holds NaN or infinity')
    self._width = max(map(len, self._images), default=0)
    self._size = region_size

  def __len__(self) -> int:
    return len(self._images)

  def rows(self, index: Int[np.ndarray, ' b']) -> tuple[np.ndarray, np.ndarray]:
    images = [self._images[row] for row in index]
    mask = np.arange(self._width) < np.array([[len(image)] for image in images])
    regions = np.zeros((*mask.shape, self._size), np.float32)
    regions[mask] = np.concatenate(images)
    return regions, mask


def _sentences(texts) -> list[str]:
  """What was given as sentences, as a list; the columns of NumPy and pandas are lists, too."""
  texts = texts.tolist() if hasattr(texts, 'tolist') else texts
  if not isinstance(texts, list | tuple):
    kind = 'one string' if isinstance(texts, str) else type(texts).__name__
    raise UserError(f'encode_texts wants a list of strings, found {kind}')
  for index, text in enumerate(texts):
    if not isinstance(text, str):
      raise UserError(f'encode_texts wants a list of strings, found {text!r} at position {index}')
  return list(texts)
