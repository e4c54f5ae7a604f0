"""The matching losses that configurations choose from: of a score matrix, with their settings."""

import dataclasses

import ml_collections
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from hrem_jax.errors import UserError
from hrem_jax.ops.losses import MatchingLoss, distance_weighted_loss, hinge_loss


@dataclasses.dataclass(frozen=True)
class Hinge:
  """Violations of the margin, all or the hardest of each anchor (VSE++, SCAN)."""

  margin: float = 0.2
  hardest_negative: bool = True

  def __call__(
    self, similarity: Float[Array, 'i t'], is_positive: Bool[Array, 'i t'], rng: PRNGKeyArray | None = None
  ) -> MatchingLoss:
    del rng  # nothing is drawn
    return hinge_loss(similarity, is_positive, margin=self.margin, hardest_negative=self.hardest_negative)


@dataclasses.dataclass(frozen=True)
class DistanceWeighted:
  """Triplets with distance-weighted negatives (METHOD section 4); the similarity must be a cosine."""

  margin: float = 0.2
  cutoff: float = 1.7
  dimension: int = 512

  def __call__(
    self, similarity: Float[Array, 'i t'], is_positive: Bool[Array, 'i t'], rng: PRNGKeyArray | None = None
  ) -> MatchingLoss:
    return distance_weighted_loss(
      similarity, is_positive, rng, margin=self.margin, cutoff=self.cutoff, dimension=self.dimension
    )


LOSSES = {
  'hinge': lambda loss: Hinge(loss.margin, loss.hardest_negative),
  'distance_weighted': lambda loss: DistanceWeighted(loss.margin, loss.cutoff, loss.density_dimension),
}


def matching_loss(name: str, loss: ml_collections.ConfigDict) -> Hinge | DistanceWeighted:
  """The loss of that name, as the section `loss` of a configuration sets it."""
  if name not in LOSSES:
    raise UserError(f'no matching loss {name!r}, there are {", ".join(LOSSES)}')
  return LOSSES[name](loss)
