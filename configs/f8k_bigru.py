"""Flickr8K grid features and a BiGRU from scratch, ten epochs: `configs/f8k_bigru.py:METHOD` trains any method.

Nothing is pretrained but the regions, so methods are compared on what they learn themselves.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import split_method, with_variant

OWN = {'hrem': {'hrem.num_heads': 8, 'hrem.warmup_steps': 469}}  # one epoch


def get_config(variant: str = ''):
  method, variant = split_method(variant)
  config = default_config(method)
  config.data.name = 'f8k'
  config.data.length_buckets = (16, 20, 24, 28, 32, 40, 48)
  config.data.min_word_count = 4
  config.model.text = 'bigru'
  config.model.region_size = 256
  config.model.embedding_size = 512
  config.optimizer.language_model_lr_factor = 1.0
  config.optimizer.decay_epochs = (6, 9)
  config.training.batch_size = 64
  config.training.num_epochs = 10
  config.update_from_flattened_dict(OWN.get(method, {}))
  return with_variant(config, variant)
