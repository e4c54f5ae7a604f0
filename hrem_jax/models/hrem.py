"""The whole matcher: two encoders and, while training, the relations among the instances of a batch."""

import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Int

from hrem_jax.models.association import Association, share_initial_relevance
from hrem_jax.models.bert import Bert
from hrem_jax.models.bigru import BiGru
from hrem_jax.models.encoders import Encoded, FragmentPooling, ZeroGain
from hrem_jax.models.image_encoder import ImageEncoder
from hrem_jax.models.interaction import Fusion, Standalone
from hrem_jax.models.text_encoder import TextEncoder
from hrem_jax.models.tower_encoders import pixel_tower, word_tower
from hrem_jax.ops.packing import Packing
from hrem_jax.ops.relations import Relations


@flax.struct.dataclass
class Outputs:
  """Everything the objective looks at. The last three are None where the graph is not active."""

  images: Encoded
  texts: Encoded
  relations: Relations | None = None
  enhanced_images: Float[Array, 'i d'] | None = None  # v', unit norm
  enhanced_texts: Float[Array, 't d'] | None = None  # u', unit norm


class HREM(nn.Module):
  """Fu et al., CVPR 2023. Each encoder also works alone: `model.apply(variables, ..., method='encode_texts')`."""

  image_encoder: ImageEncoder
  text_encoder: TextEncoder
  association: Association | None = None  # None: no instance level at all
  interaction: Fusion | Standalone | None = None

  kind = 'embeddings'

  @property
  def takes_embeddings(self) -> bool:
    """Whether images come with the embeddings that the encoder of their regions makes of them."""
    return self.image_encoder.residual is not None and self.image_encoder.tower is None

  def encode_images(
    self,
    regions: Float[Array, 'i r f'],
    mask: Bool[Array, 'i r'],
    embeddings: Float[Array, 'i d'] | None = None,
    *,
    train: bool = False,
  ) -> Encoded:
    """Args: `embeddings` where `takes_embeddings`."""
    return self.image_encoder(regions, mask, embeddings, train=train)

  def encode_texts(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> Encoded:
    """Args: with `packing` the rows of `tokens` and `mask` hold several captions; the result has one per row."""
    return self.text_encoder(tokens, mask, packing=packing, train=train)

  def __call__(
    self,
    regions: Float[Array, 'i r f'],
    region_mask: Bool[Array, 'i r'],
    tokens: Int[Array, 't w'],
    word_mask: Bool[Array, 't w'],
    *,
    graph_active: bool,
    packing: Packing | None = None,
    embeddings: Float[Array, 'i d'] | None = None,
    train: bool = False,
  ) -> Outputs:
    """Encodes a batch and, where `graph_active` (static), lets its instances look at each other."""
    images = self.encode_images(regions, region_mask, embeddings, train=train)
    texts = self.encode_texts(tokens, word_mask, packing=packing, train=train)
    if not graph_active or self.association is None:
      return Outputs(images, texts)
    relations = self.association(images, texts)
    return Outputs(images, texts, relations, *self.interaction(images, texts, relations, train=train))


def build_model(config: ml_collections.ConfigDict) -> HREM:
  """The module that `config` (the section `model` of a configuration) describes."""
  dtype, size = jnp.dtype(config.dtype), config.embedding_size

  def pooling(use_graph: bool) -> FragmentPooling:
    return FragmentPooling(config.num_heads, config.dropout, config.residual_weight, use_graph, dtype)

  language_models = {
    'bert': lambda: Bert(**config.bert, dtype=dtype, remat=config.remat),
    'bigru': lambda: BiGru(**config.bigru, hidden_size=size, dtype=dtype),
    'tower': lambda: word_tower(config.text_tower, dtype=dtype, remat=config.remat),
  }
  image_towers = {
    'regions': lambda: None,
    'tower': lambda: pixel_tower(config.image_tower, dtype=dtype, remat=config.remat),
  }
  starts = {'random': lambda: None, 'zero_shot': lambda: ZeroGain()}
  interaction = (config.num_heads, config.dropout, config.relevance_weight, config.normalize_inputs)
  interactions = {
    'fusion': lambda: Fusion(*interaction),
    'standalone': lambda: Standalone(*interaction, config.share_weights, config.association.blocks),
    'none': lambda: None,
  }
  return HREM(
    image_encoder=ImageEncoder(
      size,
      pooling(config.image_graph),
      dtype,
      config.parts,
      tower=image_towers[config.image](),
      residual=starts[config.start](),
    ),
    text_encoder=TextEncoder(
      size,
      language_models[config.text](),
      pooling(config.text_graph),
      dtype,
      config.parts,
      residual=starts[config.start](),
    ),
    association=None if config.interaction == 'none' else Association(**config.association),
    interaction=interactions[config.interaction](),
  )


@functools.partial(jax.jit, static_argnames=('model', 'region_size'))  # one program instead of one per initializer
def init_variables(model: HREM, rng: jax.Array, *, region_size: int) -> dict:
  """Parameters and batch statistics of all parts, from shapes alone: `{'params': ..., 'batch_stats': ...}`."""
  tower, embeddings, real = model.image_encoder.tower, None, jnp.ones((2, 2), bool)
  num_regions = 2 if tower is None else tower.num_regions
  if model.takes_embeddings:
    embeddings = jnp.zeros((2, model.image_encoder.embedding_size))
  variables = model.init(
    rng,
    jnp.zeros((2, num_regions, region_size)),
    jnp.ones((2, num_regions), bool),
    jnp.zeros((2, 2), jnp.int32),
    real,
    graph_active=True,
    embeddings=embeddings,
  )
  params = dict(variables['params'])
  if 'association' in params:
    params['association'] = share_initial_relevance(params['association'])
  return {'params': params, 'batch_stats': variables['batch_stats']}
