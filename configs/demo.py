"""Scenes of OpenMoji artwork, a small BiGRU from scratch: minutes on two CPU cores.

`make demo` composes the data, trains this and writes a page of pictures. Expect a test rSum above 350 (chance: 7).
`configs/demo.py:METHOD` trains another method.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import split_method, with_variant

OWN = {'hrem': {'hrem.num_heads': 4, 'hrem.warmup_steps': 312}}  # two epochs


def get_config(variant: str = ''):
  method, variant = split_method(variant)
  config = default_config(method)
  config.data.name = 'demo'
  config.data.length_buckets = (16, 24, 36)
  config.data.drop_words = 0.1
  config.data.drop_regions = 0.1
  config.model.text = 'bigru'
  config.model.region_size = 322
  config.model.embedding_size = 256
  config.model.bigru.word_size = 128
  config.optimizer.learning_rate = 1e-3
  config.optimizer.language_model_lr_factor = 1.0
  config.optimizer.decay_epochs = (5,)
  config.training.batch_size = 64
  config.training.num_epochs = 6
  config.training.checkpoint_every_steps = 200
  config.update_from_flattened_dict(OWN.get(method, {}))
  return with_variant(config, variant)
