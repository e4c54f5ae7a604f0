"""Flickr30K, BiGRU, Fusion. Paper (1K test, selected on test): rSum 506.8."""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'f30k'
  config.data.min_word_count = 4  # as the field's vocabularies
  config.model.text = 'bigru'
  config.optimizer.language_model_lr_factor = 1.0
  return with_variant(config, variant)
