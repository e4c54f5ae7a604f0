"""Flickr8K grid features, a frozen MiniLM, one epoch: the budget of the study in docs/results.md.

Minutes per training on one CPU core, so that variants, seeds and methods can be compared:
`configs/f8k_frozen.py:METHOD`. Weights as for `f8k_minilm.py`.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import split_method, with_variant

A_THIRD = 156  # of the epoch: from then on the second part of an objective
OWN = {
  'hrem': {'hrem.num_heads': 8, 'hrem.warmup_steps': A_THIRD},
  'gpo': {'loss.hardest_from': (A_THIRD, 'steps')},
  'scan': {'model.text': 'bert', 'loss.hardest_from': (A_THIRD, 'steps'), 'optimizer.learning_rate': 5e-4},
}


def get_config(variant: str = ''):
  method, variant = split_method(variant)
  config = default_config(method)
  config.data.name = 'f8k'
  config.data.length_buckets = (40,)
  config.model.region_size = 256
  config.model.embedding_size = 256
  config.model.weights = 'data/minilm'
  # Sizes of all-MiniLM-L6-v2, until the folder says its own.
  config.model.bert.update(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536)
  config.optimizer.language_model_lr_factor = 0.0
  config.training.batch_size = 64
  config.training.num_epochs = 1
  config.training.checkpoint_every_steps = 234
  config.update_from_flattened_dict(OWN.get(method, {}))
  return with_variant(config, variant)
