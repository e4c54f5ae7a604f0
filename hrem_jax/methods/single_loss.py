"""What methods share whose objective is one matching loss on the scores that they are tested by."""

import dataclasses

import flax.linen as nn
import ml_collections

from hrem_jax.data.batch import Batch
from hrem_jax.errors import UserError
from hrem_jax.methods.method import Losses, TwoEncoders
from hrem_jax.models.matching import Hinge


class SingleLoss(TwoEncoders):
  """Phases: `sum`, where every violation of the margin counts, then `hardest`, where the worst of each anchor does."""

  loss: Hinge = Hinge()
  hardest_from: tuple[int, str] = (0, 'steps')  # when the second phase begins, in `steps` or `epochs`

  @property
  def phases(self) -> tuple[str, ...]:
    if not self.loss.hardest_negative:
      return ('sum',)
    return ('sum', 'hardest') if self.hardest_from[0] else ('hardest',)

  @nn.nowrap
  def phase(self, step: int, steps_per_epoch: int) -> str:
    count, unit = self.hardest_from
    first_step = count * (steps_per_epoch if unit == 'epochs' else 1)
    return 'hardest' if self.loss.hardest_negative and step >= first_step else 'sum'

  def losses(self, batch: Batch, *, phase: str, train: bool = True) -> Losses:
    images, texts = self.encode_images(batch.images, train=train), self.encode_texts(batch.texts, train=train)
    similarity = self.score(images, texts)[0]
    loss = dataclasses.replace(self.loss, hardest_negative=phase == 'hardest')
    found = loss(similarity, batch.image_ids[:, None] == batch.image_ids[None, :])
    counts = {'anchors_without_negatives': found.anchors_without_negatives}
    return Losses({'matching': found.loss}, {'matching': 1.0}, counts, similarity)


def loss_settings(config: ml_collections.ConfigDict) -> dict:
  """The fields of `SingleLoss` that the section `loss` of a configuration sets."""
  return {
    'loss': Hinge(config.loss.margin, config.loss.hardest_negative),
    'hardest_from': tuple(config.loss.hardest_from),
  }


def check_loss(config: ml_collections.ConfigDict) -> None:
  """Raises UserError where another loss is asked for: its negatives are drawn by cosines, which scores need not be."""
  if config.loss.base != 'hinge':
    raise UserError(f"config.loss.base is {config.loss.base!r}, expected 'hinge' for config.method={config.method!r}")
