"""Flickr8K grid features, a frozen MiniLM, one epoch: the budget of the study in docs/results.md.

Minutes per training on one CPU core, so that variants and seeds can be compared. Weights as for `f8k_minilm.py`.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'f8k'
  config.data.length_buckets = (40,)
  config.model.region_size = 256
  config.model.embedding_size = 256
  config.hrem.num_heads = 8
  config.model.weights = 'data/minilm'
  # Sizes of all-MiniLM-L6-v2, until the folder says its own.
  config.model.bert.update(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536)
  config.hrem.warmup_steps = 156  # a third of the epoch
  config.optimizer.language_model_lr_factor = 0.0
  config.training.batch_size = 64
  config.training.num_epochs = 1
  config.training.checkpoint_every_steps = 234
  return with_variant(config, variant)
