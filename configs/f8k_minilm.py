"""Flickr8K grid features with a small pretrained BERT: trains on a laptop.

Data: 36 cells of 256 numbers in `DIRECTORY/f8k_precomp`. Weights: the folder of any small BERT; `make minilm` puts
all-MiniLM-L6-v2 where this looks for it. Its authors trained it on captions of Flickr30K among others: figures with it
are not those of a text encoder that never saw such captions.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'f8k'
  config.data.length_buckets = (16, 20, 24, 28, 32, 40, 48)
  config.model.region_size = 256
  config.model.embedding_size = 512
  config.hrem.num_heads = 8
  config.model.weights = 'data/minilm'
  # Sizes of all-MiniLM-L6-v2, until the folder says its own.
  config.model.bert.update(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536)
  config.hrem.warmup_steps = 234  # one epoch
  config.training.num_epochs = 10
  config.optimizer.decay_epochs = (6, 9)
  config.training.checkpoint_every_steps = 100
  return with_variant(config, variant)
