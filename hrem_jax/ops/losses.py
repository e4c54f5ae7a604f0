"""Matching losses and the relation regulariser (METHOD section 4; paper section 3.4).

All of them are written for the whole global batch and sum over it. `similarity` is images x texts; `is_positive[i, t]`
is True where image `i` and text `t` belong together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from hrem_jax.ops.relations import PRECISION


class MatchingLoss(NamedTuple):
  """A loss and what its sampler could not do."""

  loss: Float[Array, '']
  anchors_without_negatives: Int[Array, '']


def cosine_similarity(images: Float[Array, 'i d'], texts: Float[Array, 't d']) -> Float[Array, 'i t']:
  """Dot products of unit-norm embeddings."""
  return jnp.matmul(images, texts.T, precision=PRECISION)


def hinge_loss(
  similarity: Float[Array, 'i t'],
  is_positive: Bool[Array, 'i t'],
  *,
  margin: float = 0.2,
  hardest_negative: bool = True,
) -> MatchingLoss:
  """Sum of hinge violations, both directions; row `j` and column `j` are the pair `j`.

  Args:
    similarity: `i == t`: the anchor's own partner stands on the diagonal.
    is_positive: Same-image pairs: never negatives.
    margin: How much higher than a negative the positive shall be.
    hardest_negative: Only the worst violation of each anchor counts (max-violation, VSE++) instead of all.

  Returns:
    `sum max(0, margin + s_negative - s_positive)`; an anchor with no negative contributes 0 and is counted.
  """
  positive = jnp.diagonal(similarity)
  eligible = ~(is_positive | jnp.eye(len(similarity), dtype=bool))

  def one_direction(similarity, eligible):
    violation = jnp.where(eligible, jnp.maximum(margin + similarity - positive[:, None], 0.0), 0.0)
    if hardest_negative:  # the first of equals, as in the release; `max` would share the gradient among them
      violation = jnp.take_along_axis(violation, jnp.argmax(violation, axis=1, keepdims=True), axis=1)
    return jnp.sum(violation), jnp.sum(~jnp.any(eligible, axis=1))

  images_loss, images_without = one_direction(similarity, eligible)
  texts_loss, texts_without = one_direction(similarity.T, eligible.T)
  return MatchingLoss(images_loss + texts_loss, images_without + texts_without)


def log_negative_weights(
  similarity: Float[Array, 'a c'],
  is_positive: Bool[Array, 'a c'],
  *,
  cutoff: float,
  dimension: int = 512,
) -> Float[Array, 'a c']:
  """Distance-weighted sampling: log of how much each candidate weighs as the negative of the row's anchor.

  On the unit sphere in `m` dimensions distances gather around sqrt(2); weighting by the inverse of their density
  draws negatives at all distances alike (Wu et al. 2017).

  Args:
    similarity: Cosines, anchors as rows. No gradient flows through the weights.
    is_positive: Same-image pairs, never negatives.
    cutoff: Candidates at distance `cutoff` and beyond are not eligible (1.7 Flickr30K, 1.9 MS-COCO).
    dimension: m of the density (512).

  Returns:
    `(2 - m) log D - (m - 3) / 2 log(1 - D^2 / 4)` with `D = max(sqrt(2 - 2 s), 0.5)`; `-inf` where not eligible.
  """
  similarity = jax.lax.stop_gradient(similarity)
  distance = jnp.sqrt(jnp.maximum(2.0 - 2.0 * similarity, 0.0))
  clamped = jnp.maximum(distance, 0.5)
  # At an antipode 1 - D^2/4 is 0 (or, rounded, below): such a candidate is beyond any cutoff below 2.
  cosine_half_angle_squared = jnp.maximum(1.0 - 0.25 * clamped**2, 1e-8)
  log_weight = (2.0 - dimension) * jnp.log(clamped) - (dimension - 3) / 2 * jnp.log(cosine_half_angle_squared)
  return jnp.where(~is_positive & (clamped < cutoff), log_weight, -jnp.inf)


def draw_negatives(
  log_weights: Float[Array, 'a c'], num_draws: int, rng: PRNGKeyArray | None
) -> Int[Array, 'a {num_draws}']:
  """Independent draws of a column for each row, with probabilities proportional to `exp(log_weights)`.

  METHOD section 4, D: a row is normalised over its eligible columns only. The law is that of Gumbel-argmax; drawn by
  inverting the cumulative distribution it takes `a * num_draws` random numbers instead of `a * num_draws * c`.

  Args:
    log_weights: `-inf` marks a column that must not be drawn.
    num_draws: Draws per row.
    rng: A key; None takes every row's heaviest column (the first of equals), without chance.

  Returns:
    Column indices; a row without any eligible column gets a meaningless index (its weights say so).
  """
  if rng is None:
    return jnp.broadcast_to(jnp.argmax(log_weights, axis=1)[:, None], (len(log_weights), num_draws))
  heaviest = jnp.max(log_weights, axis=1, keepdims=True)
  weights = jnp.exp(log_weights - jnp.where(jnp.isfinite(heaviest), heaviest, 0.0))
  cumulative = jnp.cumsum(weights, axis=1)
  drawn = jax.random.uniform(rng, (len(weights), num_draws)) * cumulative[:, -1:]
  columns = jax.vmap(lambda row, values: jnp.searchsorted(row, values, side='right'))(cumulative, drawn)
  # The sums are rounded: once in ten million draws the search ends beside an eligible column.
  is_eligible = jnp.take_along_axis(weights, jnp.minimum(columns, weights.shape[1] - 1), axis=1) > 0
  return jnp.where(is_eligible, columns, jnp.argmax(log_weights, axis=1)[:, None])


def triplet_loss(
  similarity: Float[Array, 'a c'],
  is_positive: Bool[Array, 'a c'],
  negatives: Int[Array, 'a c'],
  has_negative: Bool[Array, ' a'],
  *,
  margin: float = 0.2,
) -> Float[Array, '']:
  """One direction: `sum max(0, margin + s[a, negative] - s[a, p])` over all anchors `a` and their positives `p`.

  `negatives[a, p]` is the column drawn for that pair; anchors without a negative contribute 0.
  """
  negative_similarity = jnp.take_along_axis(similarity, negatives, axis=1)
  violation = jnp.maximum(margin + negative_similarity - similarity, 0.0)
  return jnp.sum(jnp.where(is_positive & has_negative[:, None], violation, 0.0))


def distance_weighted_loss(
  similarity: Float[Array, 'i t'],
  is_positive: Bool[Array, 'i t'],
  rng: PRNGKeyArray | None,
  *,
  margin: float = 0.2,
  cutoff: float = 1.7,
  dimension: int = 512,
) -> MatchingLoss:
  """Triplet loss with distance-weighted negatives, summed over all positive pairs and both directions.

  Args:
    similarity: Cosines, images x texts.
    is_positive: All pairs with the same image id.
    rng: Key for the negatives; None takes each anchor's heaviest one.
    margin, cutoff, dimension: See `triplet_loss` and `log_negative_weights`.
  """

  def one_direction(similarity, is_positive, rng):
    log_weights = log_negative_weights(similarity, is_positive, cutoff=cutoff, dimension=dimension)
    has_negative = jnp.any(jnp.isfinite(log_weights), axis=1)
    negatives = draw_negatives(log_weights, similarity.shape[1], rng)
    loss = triplet_loss(similarity, is_positive, negatives, has_negative, margin=margin)
    return loss, jnp.sum(jnp.any(is_positive, axis=1) & ~has_negative)

  image_rng, text_rng = (None, None) if rng is None else jax.random.split(rng)
  images_loss, images_without = one_direction(similarity, is_positive, image_rng)
  texts_loss, texts_without = one_direction(similarity.T, is_positive.T, text_rng)
  return MatchingLoss(images_loss + texts_loss, images_without + texts_without)


def relation_loss(relevance: Float[Array, 'a c'], affinity: Float[Array, 'a c']) -> Float[Array, '']:
  """L_reg, one direction: mean over rows of `KL(softmax(relevance) || softmax(affinity))`.

  Args:
    relevance: An inter block of S.
    affinity: `exp(-|v - u|)` of the embeddings; no gradient flows to it.
  """
  log_p = jax.nn.log_softmax(relevance, axis=1)
  log_q = jax.nn.log_softmax(jax.lax.stop_gradient(affinity), axis=1)
  return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1))
