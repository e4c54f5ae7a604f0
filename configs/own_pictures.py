"""Your own pictures and captions, as `python -m hrem_jax extract` wrote them; a BiGRU from scratch, no weights needed.

`--data=DATA` finds `DATA/own_precomp` (`--config.data.name=` for another name). With a BERT's folder,
`--config.model.text=bert --config.model.weights=FOLDER`, sentences with words that training never saw work, too.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'own'
  config.data.length_buckets = (16, 24, 40)
  config.model.text = 'bigru'
  config.model.region_size = 0  # what the features have
  config.model.embedding_size = 256
  config.hrem.num_heads = 4
  config.model.bigru.word_size = 128
  config.hrem.warmup_steps = 100
  config.optimizer.learning_rate = 1e-3
  config.optimizer.language_model_lr_factor = 1.0
  config.optimizer.decay_epochs = (8,)
  config.training.batch_size = 64
  config.training.num_epochs = 10
  config.training.checkpoint_every_steps = 200
  return with_variant(config, variant)
