"""Tiny pretrained towers: a configuration with both of them, and what their plain embeddings are."""

import numpy as np

SIZES = dict(hidden_size=12, num_layers=1, num_heads=2, intermediate_size=20)


def tower_config(*, image: str = 'regions', causal: bool = True):
  """A configuration whose texts, and images if `image` is 'tower', go through towers with embeddings of size 16."""
  from hrem_jax.methods.registry import default_config

  config = default_config()
  config.model.text_tower.update(
    **SIZES, vocab_size=50, max_positions=12, projection_size=16, pad_token=49, end_token=48, causal=causal
  )
  config.model.image_tower.update(**SIZES, image_size=12, patch_size=4, projection_size=16)
  config.model.update(start='zero_shot', text='tower', weights='a folder', image=image, embedding_size=16)
  config.hrem.update(num_heads=4)
  config.model.update(region_size=48 if image == 'tower' else 13)
  config.hrem.update(dropout=0.0, image_graph=False, text_graph=False)
  if image == 'tower':
    config.model.image_weights = 'a folder'
  config.hrem.association.top_k = 3
  config.data.pack = False
  config.data.length_buckets = (8, 12)
  config.hrem.warmup_steps = 1
  return config


def batch(config, *, seed: int = 0, size: int = 6):
  """A batch of random images and texts as `config` wants them."""
  from hrem_jax.data.batch import Batch, ImageInputs, TextInputs

  rng = np.random.default_rng(seed)
  if config.model.image == 'tower':
    regions = rng.integers(0, 256, (size, 9, 48)).astype(np.float16)
  else:
    regions = rng.normal(size=(size, 5, 13)).astype(np.float32)
  tokens, word_mask = np.full((size, 8), 49, np.int32), np.zeros((size, 8), bool)
  for row, length in enumerate(rng.integers(3, 9, size)):
    tokens[row, :length], word_mask[row, :length] = [0, *rng.integers(1, 48, length - 2), 48], True
  embeddings = rng.normal(size=(size, 16)).astype(np.float32)
  embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
  extras = {} if config.model.image == 'tower' else {'embeddings': embeddings}
  images = ImageInputs(regions, np.ones(regions.shape[:2], bool), extras)
  return Batch(images, TextInputs(tokens, word_mask), np.arange(size, dtype=np.int32))
