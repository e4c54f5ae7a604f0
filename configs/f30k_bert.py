"""Flickr30K, BERT-base, Fusion: the recipe of METHOD section 5, which is the default everywhere.

Paper (1K test, selected on test): rSum 520.4. Weights: a folder of bert-base-uncased, or its hub name.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'f30k'
  config.model.weights = 'google-bert/bert-base-uncased'
  return with_variant(config, variant)
