"""GPO, also called VSE-infinity: Chen et al., *Learning the Best Pooling Strategy for Visual Semantic Embedding*, CVPR
2021.

Two encoders embed images and texts. Each channel of an embedding is a weighted mean of that channel's values, sorted;
the weights of the ranks are learnt and depend on the number of fragments alone. Captions of the same image are never
negatives of each other here, and padding never takes part in BatchNorm; the public program spares the diagonal alone
and lets it.
"""

import ml_collections

from hrem_jax.methods.method import About, Entry, Variant
from hrem_jax.methods.single_loss import SingleLoss, check_loss, loss_settings
from hrem_jax.models.build import build_image_encoder, build_text_encoder, compute_type
from hrem_jax.models.image_encoder import RegionProjection
from hrem_jax.models.pooling_by_rank import PoolingByRank
from hrem_jax.models.start_values import Linear, torch_default
from hrem_jax.settings import POSITIVE, Setting

SETTINGS = {
  'position_size': Setting(32, 'of the vector that stands for a rank; even', POSITIVE),
  'hidden_size': Setting(32, 'of the GRU that reads the ranks', POSITIVE),
  'temperature': Setting(0.1, 'of the softmax over the ranks', POSITIVE),
}
RECIPE = {
  'loss.base': 'hinge',
  'loss.hardest_from': (1, 'epochs'),
  'optimizer.decay_epochs': (15,),
  'training.num_epochs': 25,
}
ABOUT = About(
  title='GPO (VSE-infinity)',
  paper='Chen et al.: Learning the Best Pooling Strategy for Visual Semantic Embedding, CVPR 2021',
  inputs='',
  figures={
    'Flickr30K BiGRU': 498.1,
    'Flickr30K BERT': 513.5,
    'COCO 1K BiGRU': 520.8,
    'COCO 1K BERT': 527.5,
    'COCO 5K BiGRU': 421.9,
    'COCO 5K BERT': 434.3,
  },
)
VARIANTS = {
  'no_size_augmentation': Variant(
    'no region and no word is left out', {'data.drop_regions': 0.0, 'data.drop_words': 0.0}
  ),
  'regions_only': Variant('only regions are left out', {'data.drop_words': 0.0}),
  'hardest_at_once': Variant('the hardest negative from the first update', {'loss.hardest_from': (0, 'steps')}),
}


class GPO(SingleLoss):
  """Embeddings by learnt pooling; their cosine is the score."""


def build(config: ml_collections.ConfigDict) -> GPO:
  """Behind a BiGRU there is no linear layer, behind BERT there is one."""
  model, dtype = config.model, compute_type(config.model)
  linear = None if model.text == 'bigru' else Linear(model.embedding_size, dtype=dtype)
  return GPO(
    build_image_encoder(
      model,
      projection=RegionProjection(model.embedding_size, dtype, mlp_start=torch_default),
      pooling=PoolingByRank(**config.gpo, dtype=dtype),
    ),
    build_text_encoder(model, pooling=PoolingByRank(**config.gpo, dtype=dtype), linear=linear),
    **loss_settings(config),
  )


METHOD = Entry(ABOUT, SETTINGS, build, RECIPE, check_loss, VARIANTS, 'configs/f30k_gpo.py:bert')
