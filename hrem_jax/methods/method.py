"""What the loop, the optimizer, the evaluation and the reports know of a method: this, and no more."""

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections
from jaxtyping import Array, Float, Int

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.models.encoded import Encoded
from hrem_jax.models.image_encoder import ImageEncoder
from hrem_jax.models.text_encoder import TextEncoder
from hrem_jax.ops.losses import cosine_similarity
from hrem_jax.settings import Settings


class Losses(NamedTuple):
  """The objective of a batch in parts: the step multiplies, adds and logs them."""

  terms: dict[str, Float[Array, '']]  # unweighted, logged as `loss/NAME`
  weights: dict[str, float]  # of each term
  counts: dict[str, Float[Array, ''] | Int[Array, '']]  # logged only
  watched: Any  # arrays that must be finite, or the update is skipped


class Group(NamedTuple):
  """Parameters that are updated alike. The group with the longest prefix that fits a parameter's path has it.

  `None` stands for what the section `optimizer` says.
  """

  prefix: str = ''  # of the path, for example `text_encoder/language_model`
  rate_factor: float = 1.0  # of the learning rate; 0: frozen, without moments and without a backward pass
  decay_epochs: tuple[int, ...] | None = None
  decay_factor: float | None = None
  first_step: int = 0  # before it: no update, no decay, and the group's own count of updates stands still


class Method(nn.Module):
  """A system that matches images and texts: one Linen module, in one file.

  `encode_images`, `encode_texts`, `score` and `losses` are applied to variables
  (`method.apply(variables, images, method='encode_images')`); all else follows from settings alone. Random numbers of
  a training step come from `make_rng('dropout')` and `make_rng('negatives')`.

  Attributes:
    kind: `embeddings` where the score is a dot product (or a maximum of few) of vectors that can be stored, `scores`
      where it needs the fragments of both sides.
    phases: All that `phase` returns, each a program of its own. `init` runs the last one, which uses every parameter.
    wants: Names of optional inputs (`extras`), each `required` or `used` where it is there.
    packs: Whether a row of tokens may hold several captions.
    text_width: The number of tokens that every text is padded to, where padding takes part in the score; None: any.
    training_only: Prefixes of parameters that serve training alone: not exported, and a conversion may lack them.
    views: Names of what a report can show: `view_NAME` makes named arrays of a batch.
  """

  kind = 'embeddings'
  phases = (None,)
  wants = MappingProxyType({})
  packs = True
  text_width = None
  training_only = ()
  views = ()

  def encode_images(self, images: ImageInputs, *, train: bool = False) -> Encoded:
    raise NotImplementedError

  def encode_texts(self, texts: TextInputs, *, train: bool = False) -> Encoded:
    """The result has a row per text, also where several share a row of tokens."""
    raise NotImplementedError

  def score(self, images: Encoded, texts: Encoded) -> Float[Array, 'm i t']:
    """The score that retrieval ranks by, of each image with each text.

    Returns:
      `m` = 1, or 2 where each direction has its own: images asking texts, then texts asking images.
    """
    return cosine_similarity(images.embedding, texts.embedding)[None]

  def losses(self, batch: Batch, *, phase: Hashable, train: bool = True) -> Losses:
    """The objective of the global batch; `phase` is static."""
    raise NotImplementedError

  @nn.nowrap
  def phase(self, step: int, steps_per_epoch: int) -> Hashable:
    """Which of `phases` the update after `step` updates is in; None is the only one of most methods."""
    del step, steps_per_epoch
    return None

  @nn.nowrap
  def groups(self, config: ml_collections.ConfigDict) -> list[Group]:
    """The parameter groups beside the rest, which is updated as the section `optimizer` of `config` says."""
    return [
      Group('text_encoder/language_model', config.optimizer.language_model_lr_factor),
      Group('image_encoder/tower', config.optimizer.image_tower_lr_factor),
    ]

  @nn.nowrap
  def first_params(self, params: dict) -> dict:
    """Random parameters as a training begins with them: a method may let some start as copies of others."""
    return params

  @property
  def num_regions(self) -> int | None:
    """How many regions every image must have; None: any number."""
    return None


class TwoEncoders(Method):
  """A method with the encoders that most have: regions and words, each to fragments, and what it pools them to."""

  image_encoder: ImageEncoder
  text_encoder: TextEncoder

  @property
  def wants(self) -> Mapping[str, str]:
    return {'embeddings': 'required'} if self.image_encoder.takes_embeddings else {}

  @property
  def num_regions(self) -> int | None:
    return self.image_encoder.tower and self.image_encoder.tower.num_regions

  def encode_images(self, images: ImageInputs, *, train: bool = False) -> Encoded:
    return self.image_encoder(images.regions, images.mask, images.extras.get('embeddings'), train=train)

  def encode_texts(self, texts: TextInputs, *, train: bool = False) -> Encoded:
    return self.text_encoder(texts.tokens, texts.mask, packing=texts.packing, train=train)


class Variant(NamedTuple):
  """A named departure from a configuration: an ablation, a setting of another table."""

  about: str
  settings: Mapping[str, Any] = MappingProxyType({})  # dotted keys
  paper: tuple[float, ...] = ()  # Flickr30K: R@1 R@5 image to text, R@1 R@5 text to image
  members: tuple[str, ...] = ()  # not trained: the mean of the scores of these variants


class About(NamedTuple):
  """For people."""

  title: str  # as tables call it
  paper: str  # authors, title, venue
  inputs: str  # what it needs beside regions and captions, or ''
  figures: Mapping[str, float]  # published rSum by row, for example 'Flickr30K BERT'
  note: str = ''  # 'reconstruction' where there is no public program, and the like


class Entry(NamedTuple):
  """What a method's file gives to the table of methods."""

  about: About
  settings: Settings  # the section `config.NAME`
  build: Callable[[ml_collections.ConfigDict], Method]  # from a whole configuration
  recipe: Mapping[str, Any] = MappingProxyType({})  # what it sets in the other sections, by dotted key
  check: Callable[[ml_collections.ConfigDict], None] = lambda config: None  # UserError: settings do not fit each other
  variants: Mapping[str, Variant] = MappingProxyType({})
  configuration: str = ''  # a file that trains it as the paper did
  moved: Mapping[str, str] = MappingProxyType({})  # dotted keys of older configurations, and what they are called now
