"""A method whose score needs the fragments of both sides: each word looks for the region that is most like it."""

import flax.linen as nn
import jax.numpy as jnp

from hrem_jax.methods.method import Method
from hrem_jax.models.encoded import Encoded
from hrem_jax.ops.pooling import l2_normalize


class SmallMethod(Method):
  size: int = 17
  vocab_size: int = 40
  num_directions: int = 1  # matrices

  kind = 'scores'

  def setup(self):
    self.project = nn.Dense(self.size)
    self.embed = nn.Embed(self.vocab_size, self.size)
    self.factor = self.param('factor', nn.initializers.constant(3.0), ())

  def encode_images(self, images, *, train=False) -> Encoded:
    return Encoded(None, l2_normalize(self.project(images.regions)), images.mask)

  def encode_texts(self, texts, *, train=False) -> Encoded:
    length = jnp.sum(texts.mask, axis=1)
    return Encoded(None, l2_normalize(self.embed(texts.tokens)), texts.mask, {'length': length})

  def score(self, images, texts):
    cosines = jnp.einsum('ird,twd->irtw', images.fragments, texts.fragments)
    best = jnp.max(jnp.where(images.mask[:, :, None, None], cosines, -jnp.inf), axis=1)
    total = jnp.sum(jnp.where(texts.mask, best, 0.0), axis=-1)
    score = self.factor * total / jnp.maximum(texts.extras['length'], 1)
    return jnp.stack([score] * self.num_directions)

  def __call__(self, images, texts):
    return self.score(self.encode_images(images), self.encode_texts(texts))
