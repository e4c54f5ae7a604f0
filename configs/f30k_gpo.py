"""Flickr30K, GPO (VSE-infinity); `:bert` (the default) or `:bigru`, and variants behind a `+`.

Paper (1K test, selected on dev): rSum 513.5 with BERT, 498.1 with a BiGRU. Weights: a folder of bert-base-uncased, or
its hub name.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import split_text, with_variant


def get_config(variant: str = ''):
  text, variant = split_text(variant)
  config = default_config('gpo')
  config.data.name = 'f30k'
  config.model.text = text
  if text == 'bert':
    config.model.weights = 'google-bert/bert-base-uncased'
  else:
    config.data.min_word_count = 4  # as the field's vocabularies
    config.optimizer.language_model_lr_factor = 1.0
    config.optimizer.weight_decay = 0.01  # of the public program
  return with_variant(config, variant)
