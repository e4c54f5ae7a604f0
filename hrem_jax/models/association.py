"""The cross-embedding association graph of a batch, with its two relevance MLPs (METHOD section 2; paper 3.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrem_jax.models.encoded import Encoded
from hrem_jax.models.start_values import Linear
from hrem_jax.ops.relations import (
  InterRelations,
  Relations,
  connection_matrix,
  cut_blocks,
  fragment_relations,
  gaussian_affinity,
)


class RelevanceMlp(nn.Module):
  """`MLP(q) + p`: the K strongest fragment matches to one relevance."""

  @nn.compact
  def __call__(self, relations: InterRelations) -> Float[Array, 'a c']:
    top_k = relations.strongest.shape[-1]
    hidden = nn.relu(Linear(top_k, name='hidden')(relations.strongest))
    return Linear(1, name='output')(hidden)[..., 0] + relations.mean


class Association(nn.Module):
  """Connection matrix A and relevance matrix S of the whole batch."""

  top_k: int = 10
  keep: float = 0.5
  sigma: float = 1.0
  squared: bool = False
  blocks: str = 'all'  # or 'intra', 'inter': the other blocks of A are cut

  def setup(self):
    self.i2t = RelevanceMlp()
    self.t2i = RelevanceMlp()

  def __call__(self, images: Encoded, texts: Encoded) -> Relations:
    i2t, t2i = fragment_relations(images.fragments, images.mask, texts.fragments, texts.mask, top_k=self.top_k)
    connection = connection_matrix(images.embedding, texts.embedding, i2t.mean, t2i.mean, keep=self.keep)
    connection = cut_blocks(connection, len(images.embedding), self.blocks)

    def intra(x):
      return gaussian_affinity(x, x, sigma=self.sigma, squared=self.squared)

    relevance = jnp.block([[intra(images.embedding), self.i2t(i2t)], [self.t2i(t2i), intra(texts.embedding)]])
    return Relations(connection=connection, relevance=relevance)


def share_initial_relevance(params: dict) -> dict:
  """The parameters of `Association` with the t2i MLP starting from the i2t MLP's weights (METHOD section 2)."""
  return {**params, 't2i': jax.tree.map(jnp.copy, params['i2t'])}
