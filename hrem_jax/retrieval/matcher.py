"""The user's door: a trained run that encodes one's own regions and sentences (`hrem_jax.restore`)."""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from hrem_jax.data.pipeline import Images
from hrem_jax.data.precomputed import Split, load_split
from hrem_jax.data.tokenizer import tokenize
from hrem_jax.errors import UserError
from hrem_jax.models.encoded import Encoded
from hrem_jax.paths import local_path, run_folder
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.protocols import Metrics, check_protocol
from hrem_jax.retrieval.regions import Regions
from hrem_jax.retrieval.run import Run, load_best


class Matcher:
  """Two encoders with their weights, on all devices of this process's mesh, whatever devices wrote the checkpoint.

  Embeddings are unit-norm float32 NumPy arrays, row for row in the order of what was given; the similarity of an image
  and a text is their dot product.

  Attributes:
    config: The configuration of the run.
    step: Of the checkpoint.
    variables: Parameters and what the method keeps beside them, on the devices, for `method.apply`.
    method: The Linen module.
  """

  def __init__(self, run: Run, variables: dict, step: int, mesh: Mesh):
    self.config: ml_collections.ConfigDict = run.config
    self.variables, self.step = variables, step
    self.method, self.tokenizer = run.method, run.tokenizer
    self._evaluator = Evaluator(run, mesh)

  @property
  def embedding_size(self) -> int:
    return self.config.model.embedding_size

  def encode_images(
    self,
    regions: Float[np.ndarray, 'i r f'] | Sequence[Float[np.ndarray, '_ f']],
    mask: Bool[np.ndarray, 'i r'] | None = None,
    *,
    embeddings: Float[np.ndarray, 'i d'] | None = None,
  ) -> Float[np.ndarray, 'i d']:
    """Embeddings of images.

    Args:
      regions: One array, or a list of arrays `[regions, features]` with different numbers of regions. With a vision
        tower in the model (`config.model.image`), all patches of each picture, pixels from 0 to 255.
      mask: True for real regions; all are without it. Not with a list.
      embeddings: What the encoder that made the regions says of the images itself, unit norm; where
        `method.wants` has `embeddings`, and only there.

    Raises:
      UserError: A shape or type is wrong, an image has no real region or one that is NaN or infinite, a mask came with
        a list, or embeddings are missing or not wanted.
    """
    features = self._checked(regions, mask, embeddings)
    if not len(features):
      return np.zeros((0, self.embedding_size), np.float32)
    return self.encode_rows(features)

  def _checked(self, regions, mask, embeddings) -> Regions:
    features = Regions(regions, mask, region_size=self.config.model.region_size)
    if self.method.num_regions is not None:
      features.check_counts(self.method.num_regions)
    takes_embeddings = 'embeddings' in self.method.wants
    if takes_embeddings or embeddings is not None:
      features.add_embeddings(embeddings, self.embedding_size if takes_embeddings else None)
    return features

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

  def similarity(
    self, images, texts: Sequence[str], *, embeddings: Float[np.ndarray, 'i d'] | None = None
  ) -> Float[np.ndarray, 'i t']:
    """Cosines of images and their `embeddings` (as for `encode_images`) and sentences."""
    return self.encode_images(images, embeddings=embeddings) @ self.encode_texts(texts).T

  def evaluate(self, data: Split | str | pathlib.Path, split: str = 'test', *, protocol: str = 'all') -> Metrics:
    """Recall metrics on a data set.

    Args:
      data: A split, or a folder in the precomputed layout (docs/data.md), for example `data/f30k_precomp`.
      split: Which split of the folder.
      protocol: `all` or `coco` (see `hrem_jax.retrieval.protocols.protocol_metrics`).
    """
    if not isinstance(data, Split):
      data = load_split(local_path(data), split)
    data.check_region_size(self.config.model.region_size, 'the model was trained on ')
    data.check_inputs(self.config.model)
    check_protocol(protocol, data.num_images, data.owner)
    return self._evaluator.evaluate(self.variables, data, protocol=protocol)


class FragmentMatcher(Matcher):
  """The same of a method that compares fragments: images and texts have no embeddings, only pairs have a score.

  What `encode_images` and `encode_texts` give is an `Encoded` of NumPy arrays, row for row in the order of what was
  given: fragments `[n, k, d]`, their mask `[n, k]`, and what else a score looks at.
  """

  def encode_images(self, regions, mask=None, *, embeddings=None) -> Encoded:
    """Fragments of images, of which there is at least one; arguments and errors as of `Matcher.encode_images`."""
    features = self._checked(regions, mask, embeddings)
    if not len(features):
      raise UserError('encode_images: no image is given, expected at least one')
    return self.encode_rows(features)

  def encode_rows(self, images: Images) -> Encoded:
    return self._evaluator.encoder.encode_image_fragments(self.variables, images)

  def encode_texts(self, texts: Sequence[str], *, few_widths: bool = True) -> Encoded:
    """Fragments of sentences, of which there is at least one, padded to a bucket; errors as of `Matcher.encode_texts`.

    Args:
      texts: A list of them.
      few_widths: There are only few.
    """
    texts = _sentences(texts)
    if not texts:
      raise UserError('encode_texts: no sentence is given, expected at least one')
    blocks, first_equal = self._evaluator.text_fragments(self.variables, texts, tokenize, one_width=True)
    place = {text: row for row, text in enumerate(np.concatenate([block.captions for block in blocks]).tolist())}
    order = [place[text] for text in first_equal.tolist()]

    def join(*parts: np.ndarray) -> np.ndarray:
      return np.concatenate([part[: len(block.captions)] for part, block in zip(parts, blocks, strict=True)])[order]

    return jax.tree.map(join, *(block.encoded for block in blocks))

  def similarity(self, images, texts: Sequence[str], *, embeddings=None) -> Float[np.ndarray, 'i t']:
    """The method's scores of images (as for `encode_images`) and sentences."""
    features, texts = self._checked(images, None, embeddings), _sentences(texts)
    if not len(features) or not texts:
      return np.zeros((len(features), len(texts)), np.float32)
    scores = self._evaluator.pair_scores(self.variables, features, texts, tokenize)
    return next(scores.blocks(np.arange(len(features)), side='images', chunk=len(features)))[1]


MATCHERS = {'embeddings': Matcher, 'scores': FragmentMatcher}


def restore(workdir: str | pathlib.Path, *, step: int | None = None) -> Matcher:
  """The matcher of a trained (or converted) workdir: a `FragmentMatcher` where its method has no embeddings.

  Args:
    workdir: That of a training, or of `python -m hrem_jax convert`.
    step: Of a checkpoint that is kept; None is the best one on the selection split.

  Raises:
    UserError: There is no such workdir or checkpoint.
  """
  workdir = run_folder(workdir)
  run, *rest = load_best(workdir, step=step)
  return MATCHERS[run.method.kind](run, *rest)


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
