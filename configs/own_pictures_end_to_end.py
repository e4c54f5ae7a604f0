"""Your own pictures, CLIP or SigLIP trained with everything else: for a GPU, and some thousand pictures at least.

It begins as `own_pictures_zero_shot.py` does, but both towers learn, too, at a fiftieth of the rate. First
`extract --encoder=FOLDER --pixels`, then with the same folder

    --config.model.weights=FOLDER --config.model.image_weights=FOLDER

A vision tower without texts (ViT, DINOv2) goes with
`--config.model.start=random --config.model.embedding_size=512 --config.model.text=bigru --config.model.weights=`.
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
  config.model.image = 'tower'
  config.model.image_weights = './encoder'
  config.model.region_size = config.model.embedding_size = 0  # those of the patches and of the towers
  config.hrem.num_heads = 8
  config.model.remat = True
  config.hrem.warmup_steps = 100
  config.optimizer.language_model_lr_factor = 0.02
  config.optimizer.image_tower_lr_factor = 0.02
  config.optimizer.decay_epochs = (8,)
  config.training.batch_size = 64
  config.training.num_epochs = 10
  config.training.checkpoint_every_steps = 200
  return with_variant(config, variant)
