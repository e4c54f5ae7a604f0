"""The objective of a batch from its named terms (METHOD section 4; paper section 3.4)."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrem_jax.models.hrem import Outputs
from hrem_jax.ops.losses import (
  MatchingLoss,
  cosine_similarity,
  distance_weighted_loss,
  hinge_loss,
  relation_loss,
)
from hrem_jax.ops.relations import gaussian_affinity, inter_blocks


def matching_loss(kind: str, config: ml_collections.ConfigDict):
  """The loss function `(similarity, is_positive, rng) -> MatchingLoss` that `config` (section `loss`) describes."""
  if kind == 'hinge':
    hinge = functools.partial(hinge_loss, margin=config.margin, hardest_negative=config.hardest_negative)
    return lambda similarity, is_positive, rng: hinge(similarity, is_positive)
  return functools.partial(
    distance_weighted_loss, margin=config.margin, cutoff=config.cutoff, dimension=config.density_dimension
  )


def loss_terms(
  outputs: Outputs, image_ids: Int[Array, ' b'], rng: PRNGKeyArray | None, config: ml_collections.ConfigDict
) -> tuple[dict[str, Float[Array, '']], Int[Array, '']]:
  """The terms `base` and, where the graph was active, `cross`, `enhanced` and `relation`, each unweighted.

  `cross` and `relation` are left out where their weight is 0.

  Args:
    outputs: Of the model, row `j` of images and of texts being the pair `j`.
    image_ids: Equal ids are positives of each other.
    rng: Key for the negatives; None takes the most likely ones.
    config: The section `loss`.

  Returns:
    The terms, and the number of anchors without a negative, over all matching losses.
  """
  is_positive = image_ids[:, None] == image_ids[None, :]
  rngs = [None] * 4 if rng is None else list(jax.random.split(rng, 4))

  def loss(kind: str, images: Array, texts: Array, rng) -> MatchingLoss:
    return matching_loss(kind, config)(cosine_similarity(images, texts), is_positive, rng)

  v, u = outputs.images.embedding, outputs.texts.embedding
  losses = {'base': loss(config.base, v, u, rngs[0])}
  if outputs.relations is None:
    return {'base': losses['base'].loss}, losses['base'].anchors_without_negatives

  enhanced_v, enhanced_u = outputs.enhanced_images, outputs.enhanced_texts
  if config.cross_weight:
    mixed = loss(config.enhanced, v, enhanced_u, rngs[1]), loss(config.enhanced, enhanced_v, u, rngs[2])
    losses['cross'] = jax.tree.map(jnp.add, *mixed)
  losses['enhanced'] = loss(config.enhanced, enhanced_v, enhanced_u, rngs[3])
  terms = {name: value.loss for name, value in losses.items()}

  if config.relation_weight:
    affinity, (i2t, t2i) = gaussian_affinity(v, u), inter_blocks(outputs.relations, len(v))
    terms['relation'] = relation_loss(i2t.relevance, affinity) + relation_loss(t2i.relevance, affinity.T)
  return terms, sum(value.anchors_without_negatives for value in losses.values())


def total_loss(terms: dict[str, Float[Array, '']], config: ml_collections.ConfigDict) -> Float[Array, '']:
  """Weighted sum of the terms; nothing is averaged over them."""
  weights = {
    'base': 1.0,
    'cross': config.cross_weight,
    'enhanced': config.enhanced_weight,
    'relation': config.relation_weight,
  }
  return sum(weights[name] * value for name, value in terms.items())
