"""SCAN: Lee, Chen, Hua, Hu, He, *Stacked Cross Attention for Image-Text Matching*, ECCV 2018.

There are no embeddings: a pair is scored from its regions and words. Each fragment of one modality asks those of the
other, which it attends to, and is compared with what it gets; the score is a mean of these cosines, or a soft maximum.
Captions of the same image are never negatives of each other here; the public program spares the diagonal alone.
"""

import flax.linen as nn
import ml_collections
from jaxtyping import Array, Float

from hrem_jax.errors import UserError
from hrem_jax.methods.method import About, Entry, Variant
from hrem_jax.methods.single_loss import SingleLoss, check_loss, loss_settings
from hrem_jax.models.build import build_image_encoder, build_text_encoder, compute_type
from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragments import UnitFragments
from hrem_jax.models.image_encoder import LinearProjection
from hrem_jax.models.start_values import Linear
from hrem_jax.ops.cross_attention import AGGREGATIONS, NORMALISATIONS, cross_attention_scores
from hrem_jax.settings import POSITIVE, Setting, one_of

SETTINGS = {
  'asks': Setting('words', 'who asks: words (t-i: text to image) or regions (i-t)', one_of('words', 'regions')),
  'inverse_temperature': Setting(9.0, 'lambda of the attention', POSITIVE),
  'aggregation': Setting('lse', 'of the cosines of those who ask', one_of(*AGGREGATIONS)),
  'lse_factor': Setting(6.0, 'mu of the aggregation lse', POSITIVE),
  'normalisation': Setting('clipped_l2norm', 'of the products, over those who ask', one_of(*NORMALISATIONS)),
}
RECIPE = {
  'data.drop_regions': 0.0,
  'data.drop_words': 0.0,
  'data.min_word_count': 4,
  'model.text': 'bigru',
  'loss.base': 'hinge',
  'optimizer.name': 'adam',
  'optimizer.weight_decay': 0.0,
  'optimizer.learning_rate': 2e-4,
  'optimizer.language_model_lr_factor': 1.0,
  'optimizer.decay_epochs': (15,),
}
ABOUT = About(
  title='SCAN',
  paper='Lee, Chen, Hua, Hu, He: Stacked Cross Attention for Image-Text Matching, ECCV 2018',
  inputs='',
  figures={'Flickr30K BiGRU': 465.0, 'COCO 1K BiGRU': 507.9, 'COCO 5K BiGRU': 410.9},
  note='mean of the scores of t-i AVG and i-t LSE',
)


def _variant(about: str, asks: str, inverse_temperature: float, aggregation: str, paper: tuple = (), **more) -> Variant:
  own = dict(asks=asks, inverse_temperature=inverse_temperature, aggregation=aggregation, **more)
  return Variant(about, {f'scan.{key}': value for key, value in own.items()}, paper)


VARIANTS = {
  't2i_lse': _variant('t-i LSE', 'words', 9.0, 'lse', lse_factor=6.0),
  't2i_avg': _variant('t-i AVG', 'words', 9.0, 'mean'),
  'i2t_lse': _variant('i-t LSE', 'regions', 4.0, 'lse', lse_factor=5.0),
  'i2t_lse_coco': _variant('i-t LSE, MS-COCO', 'regions', 4.0, 'lse', lse_factor=20.0),
  'i2t_avg': _variant('i-t AVG', 'regions', 4.0, 'mean'),
  'both': Variant('SCAN*: mean of both directions', members=('t2i_avg', 'i2t_lse')),
}


class SCAN(SingleLoss):
  """Fragments of unit norm, and the stacked cross attention of each pair (section 3 of the paper)."""

  kind = 'scores'

  asks: str = 'words'
  inverse_temperature: float = 9.0
  aggregation: str = 'lse'
  lse_factor: float = 6.0
  normalisation: str = 'clipped_l2norm'

  @nn.nowrap
  def score(self, images: Encoded, texts: Encoded) -> Float[Array, '1 i t']:
    return cross_attention_scores(
      images.fragments,
      images.mask,
      texts.fragments,
      texts.mask,
      asks=self.asks,
      inverse_temperature=self.inverse_temperature,
      normalisation=self.normalisation,
      aggregation=self.aggregation,
      lse_factor=self.lse_factor,
    )[None]


def build(config: ml_collections.ConfigDict) -> SCAN:
  """Behind a BiGRU there is no linear layer; behind another language model, which the paper has not, there is one."""
  model, dtype = config.model, compute_type(config.model)
  linear = None if model.text == 'bigru' else Linear(model.embedding_size, dtype=dtype)
  return SCAN(
    build_image_encoder(model, projection=LinearProjection(model.embedding_size, dtype), pooling=UnitFragments()),
    build_text_encoder(model, pooling=UnitFragments(), linear=linear),
    **loss_settings(config),
    **config.scan,
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError where settings do not fit the method."""
  check_loss(config)
  if config.model.start != 'random':
    raise UserError(f"config.model.start is {config.model.start!r}, expected 'random': SCAN has no embeddings")


METHOD = Entry(ABOUT, SETTINGS, build, RECIPE, check, VARIANTS, 'configs/f30k_scan.py')
