"""Your own pictures on top of a CLIP or SigLIP: training begins exactly as good as that is, without any training.

Both towers stay as they are; what is learnt is added to their embeddings with a gain that starts at 0, and what
training began with stands in every table as `zero-shot`. First `extract --encoder=FOLDER`, then with the same folder

    --config.model.weights=FOLDER
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'own'
  config.data.length_buckets = (16, 24, 40, 64)
  config.data.pack = False  # SigLIP's texts cannot be packed; CLIP's can
  config.data.drop_words = 0.1
  config.model.start = 'zero_shot'
  config.model.text = 'tower'
  config.model.weights = './encoder'
  config.model.region_size = config.model.embedding_size = 0  # those of the features and of the towers
  config.hrem.num_heads = 8
  config.hrem.warmup_steps = 100
  config.optimizer.language_model_lr_factor = 0.0
  config.optimizer.decay_epochs = (8,)
  config.training.batch_size = 64
  config.training.num_epochs = 10
  config.training.checkpoint_every_steps = 200
  return with_variant(config, variant)
