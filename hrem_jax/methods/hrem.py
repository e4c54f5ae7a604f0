"""HREM: Fu, Mao, Song, Zhang, *Learning Semantic Relationship Among Instances for Image-Text Matching*, CVPR 2023.

Two encoders embed images and texts. While training, the instances of a batch also look at each other along a graph of
how their fragments match, and the enhanced embeddings that come out get losses as well (docs/method.md). "METHOD
section N" is section N of that page.
"""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrem_jax.configuration import must_divide
from hrem_jax.data.batch import Batch
from hrem_jax.errors import UserError
from hrem_jax.methods.hrem_variants import VARIANTS
from hrem_jax.methods.method import About, Entry, Group, Losses, TwoEncoders
from hrem_jax.models.association import Association, share_initial_relevance
from hrem_jax.models.build import build_image_encoder, build_text_encoder, compute_type
from hrem_jax.models.encoded import Encoded
from hrem_jax.models.fragment_pooling import FragmentPooling
from hrem_jax.models.image_encoder import RegionProjection
from hrem_jax.models.interaction import Fusion, Standalone
from hrem_jax.models.matching import LOSSES, DistanceWeighted, Hinge, matching_loss
from hrem_jax.models.start_values import Linear
from hrem_jax.ops.losses import cosine_similarity, relation_loss
from hrem_jax.ops.relations import Relations, gaussian_affinity, inter_blocks
from hrem_jax.settings import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Check, Setting, one_of

GRAPH_PARTS = ('association', 'interaction')
_ONE_OF_LOSSES = one_of(*LOSSES)
SETTINGS = {
  'num_heads': Setting(16, 'of the fragment graphs and the interaction', POSITIVE),
  'dropout': Setting(0.1, 'of the same', BELOW_ONE),
  'residual_weight': Setting(0.8, 'of the pooling before the fragment graph; the rest is that after it', SHARE),
  'image_graph': Setting(True, 'the fragment relation graph of images'),
  'text_graph': Setting(True, 'that of texts'),
  'interaction': Setting('fusion', 'none: no instance level', one_of('fusion', 'standalone', 'none')),
  'share_weights': Setting(False, 'Standalone: one set of layers for both modalities'),
  'relevance_weight': Setting(1.0, 'lambda of the attention with the graph', NOT_NEGATIVE),
  'normalize_inputs': Setting(True, 'the interaction sees unit-norm embeddings'),
  'association': {
    'top_k': Setting(10, 'strongest fragment matches that are kept of a pair', POSITIVE),
    'keep': Setting(
      0.5,
      'share of each row of a block that is connected; 1: no connection matrix',
      Check(lambda value: 0 < value <= 1, 'above 0, at most 1'),
    ),
    'sigma': Setting(1.0, 'of the relevance within a modality', POSITIVE),
    'squared': Setting(False, 'that relevance looks at squared distances'),
    'blocks': Setting('all', 'intra or inter: the other blocks are cut', one_of('all', 'intra', 'inter')),
  },
  'enhanced': Setting('distance_weighted', 'the loss of every term with an enhanced embedding', _ONE_OF_LOSSES),
  'cross_weight': Setting(1.0, "of L(v, u') and L(v', u)", NOT_NEGATIVE),
  'enhanced_weight': Setting(1.0, "of L(v', u')", NOT_NEGATIVE),
  'relation_weight': Setting(10.0, 'of L_reg', NOT_NEGATIVE),
  'warmup_steps': Setting(8000, 'before this step only the base term', NOT_NEGATIVE),
  'graph_lr_factor': Setting(1.0, 'learning rate of the graph and the interaction', NOT_NEGATIVE),
}
ABOUT = About(
  title='HREM',
  paper='Fu, Mao, Song, Zhang: Learning Semantic Relationship Among Instances for Image-Text Matching, CVPR 2023',
  inputs='',
  figures={
    'Flickr30K BiGRU': 506.8,
    'Flickr30K BERT': 520.4,
    'COCO 1K BiGRU': 522.8,
    'COCO 1K BERT': 530.7,
    'COCO 5K BiGRU': 428.1,
    'COCO 5K BERT': 444.1,
  },
  note='Fusion; figures of checkpoints selected on test',
)


@flax.struct.dataclass
class Outputs:
  """Everything the objective looks at. The last three are None where the graph is not active."""

  images: Encoded
  texts: Encoded
  relations: Relations | None = None
  enhanced_images: Float[Array, 'i d'] | None = None  # v', unit norm
  enhanced_texts: Float[Array, 't d'] | None = None  # u', unit norm


class HREM(TwoEncoders):
  """Phases: `base` before the warm-up's end, where the graph costs nothing, then `graph`."""

  association: Association | None = None  # None: no instance level at all
  interaction: Fusion | Standalone | None = None
  base_loss: DistanceWeighted | Hinge = DistanceWeighted()
  enhanced_loss: DistanceWeighted | Hinge = DistanceWeighted()
  cross_weight: float = 1.0
  enhanced_weight: float = 1.0
  relation_weight: float = 10.0
  warmup_steps: int = 8000

  @property
  def phases(self) -> tuple[str, ...]:
    return ('base',) if self.association is None else ('base', 'graph')

  @property
  def views(self) -> tuple[str, ...]:
    return () if self.association is None else ('relations',)

  def __call__(self, batch: Batch, *, phase: str, train: bool = False) -> Outputs:
    """Encodes a batch and, in the phase `graph`, lets its instances look at each other."""
    images, texts = self.encode_images(batch.images, train=train), self.encode_texts(batch.texts, train=train)
    if phase == 'base':
      return Outputs(images, texts)
    relations = self.association(images, texts)
    return Outputs(images, texts, relations, *self.interaction(images, texts, relations, train=train))

  def losses(self, batch: Batch, *, phase: str, train: bool = True) -> Losses:
    """METHOD section 4; paper section 3.4. Without random numbers `negatives`, the most likely ones are taken."""
    rng = self.make_rng('negatives') if self.has_rng('negatives') else None
    return self.objective(self(batch, phase=phase, train=train), batch.image_ids, rng)

  @nn.nowrap
  def objective(self, outputs: Outputs, image_ids: Int[Array, ' b'], rng: PRNGKeyArray | None) -> Losses:
    """`L(v, u) + cross (L(v, u') + L(v', u)) + enhanced L(v', u') + relation L_reg`; nothing is averaged over terms.

    Args:
      outputs: Row `j` of images and of texts being the pair `j`. Without a graph, the first term is all.
      image_ids: Equal ids are positives of each other.
      rng: Key for the negatives; None takes the most likely ones.
    """
    is_positive = image_ids[:, None] == image_ids[None, :]
    rngs = [None] * 4 if rng is None else list(jax.random.split(rng, 4))
    v, u = outputs.images.embedding, outputs.texts.embedding
    losses = {'base': self.base_loss(cosine_similarity(v, u), is_positive, rngs[0])}
    terms = {}
    if outputs.relations is not None:
      enhanced_v, enhanced_u = outputs.enhanced_images, outputs.enhanced_texts

      def loss(images: Array, texts: Array, rng):
        return self.enhanced_loss(cosine_similarity(images, texts), is_positive, rng)

      if self.cross_weight:
        losses['cross'] = jax.tree.map(jnp.add, loss(v, enhanced_u, rngs[1]), loss(enhanced_v, u, rngs[2]))
      losses['enhanced'] = loss(enhanced_v, enhanced_u, rngs[3])
      if self.relation_weight:
        affinity, (i2t, t2i) = gaussian_affinity(v, u), inter_blocks(outputs.relations, len(v))
        terms['relation'] = relation_loss(i2t.relevance, affinity) + relation_loss(t2i.relevance, affinity.T)
    terms = {name: value.loss for name, value in losses.items()} | terms
    weights = {
      'base': 1.0,
      'cross': self.cross_weight,
      'enhanced': self.enhanced_weight,
      'relation': self.relation_weight,
    }
    return Losses(
      terms,
      {name: weights[name] for name in terms},
      {'anchors_without_negatives': sum(value.anchors_without_negatives for value in losses.values())},
      # Not only the loss: a NaN is no one's negative, and without negatives the loss is 0.
      (v, u, outputs.enhanced_images, outputs.enhanced_texts),
    )

  @nn.nowrap
  def phase(self, step: int, steps_per_epoch: int) -> str:
    return 'graph' if self.association is not None and step >= self.warmup_steps else 'base'

  @nn.nowrap
  def groups(self, config: ml_collections.ConfigDict) -> list[Group]:
    """The graph's parameters wait for its first step: no gradient, no decay and no moment before (METHOD section 5)."""
    factor = config.hrem.graph_lr_factor
    return [*super().groups(config), *(Group(part, factor, first_step=self.warmup_steps) for part in GRAPH_PARTS)]

  @nn.nowrap
  def first_params(self, params: dict) -> dict:
    """Both relevance perceptrons start with the same weights (METHOD section 2)."""
    if self.association is None:
      return params
    return {**params, 'association': share_initial_relevance(params['association'])}

  def view_relations(self, batch: Batch) -> dict[str, Array]:
    """The graph of a batch, and the similarity before and after its instances looked at each other."""
    outputs = self(batch, phase='graph')
    return {
      'connection': outputs.relations.connection,
      'relevance': outputs.relations.relevance,
      'before': cosine_similarity(outputs.images.embedding, outputs.texts.embedding),
      'after': cosine_similarity(outputs.enhanced_images, outputs.enhanced_texts),
    }


def build(config: ml_collections.ConfigDict) -> HREM:
  """The module that a whole configuration describes."""
  model, own, dtype = config.model, config.hrem, compute_type(config.model)

  def pooling(use_graph: bool) -> FragmentPooling:
    return FragmentPooling(own.num_heads, own.dropout, own.residual_weight, use_graph, dtype)

  interaction = (own.num_heads, own.dropout, own.relevance_weight, own.normalize_inputs)
  interactions = {
    'fusion': lambda: Fusion(*interaction),
    'standalone': lambda: Standalone(*interaction, own.share_weights, own.association.blocks),
    'none': lambda: None,
  }
  return HREM(
    build_image_encoder(
      model, projection=RegionProjection(model.embedding_size, dtype), pooling=pooling(own.image_graph)
    ),
    build_text_encoder(model, pooling=pooling(own.text_graph), linear=Linear(model.embedding_size, dtype=dtype)),
    association=None if own.interaction == 'none' else Association(**own.association),
    interaction=interactions[own.interaction](),
    base_loss=matching_loss(config.loss.base, config.loss),
    enhanced_loss=matching_loss(own.enhanced, config.loss),
    **{name: own[name] for name in ('cross_weight', 'enhanced_weight', 'relation_weight', 'warmup_steps')},
  )


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UserError where settings do not fit each other."""
  heads = config.hrem.num_heads
  must_divide(config, 'model.embedding_size', heads, f'config.hrem.num_heads ({heads})')
  if config.loss.hardest_from[0]:
    raise UserError(
      f"config.loss.hardest_from is {config.loss.hardest_from}, expected (0, 'steps'): HREM has one kind of loss from "
      'the first update on (config.loss.hardest_negative)'
    )


def _moved() -> dict[str, str]:
  """Where settings of configurations from before there were other methods stand now."""
  model = (
    'num_heads dropout residual_weight image_graph text_graph interaction share_weights relevance_weight '
    'normalize_inputs association.top_k association.keep association.sigma association.squared '
    'association.blocks'
  )
  loss = 'enhanced cross_weight enhanced_weight relation_weight warmup_steps'
  sections = {'model': model, 'loss': loss, 'optimizer': 'graph_lr_factor'}
  return {f'{section}.{key}': f'hrem.{key}' for section, keys in sections.items() for key in keys.split()}


METHOD = Entry(
  ABOUT, SETTINGS, build, check=check, variants=VARIANTS, configuration='configs/f30k_bert.py', moved=_moved()
)
