"""The cross-embedding association graph: who is connected to whom, how strongly (METHOD section 2; paper 3.2).

Everything here sees the whole global batch. `n = i + t` instances, images first; row = who asks.
"""

from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.ops.pooling import l2_normalize

# Region-word and embedding products decide who is connected: a reduced-precision product would flip edges.
PRECISION = jax.lax.Precision.HIGHEST


class InterRelations(NamedTuple):
  """How the instances of one modality (rows, who asks) see those of the other (columns)."""

  mean: Float[Array, 'a c']  # p: mean over the asked instance's fragments of their best match
  strongest: Float[Array, 'a c k']  # q: the k largest of those matches, descending, 0 where there are fewer


@flax.struct.dataclass
class Relations:
  """The association graph of a batch `[n, n]`, or a block of it: row = who asks, column = who is asked."""

  connection: Bool[Array, 'a c']  # A: True where the row may look at the column
  relevance: Float[Array, 'a c']  # S: how relevant the column is for the row


def inter_blocks(relations: Relations, num_images: int) -> tuple[Relations, Relations]:
  """The edges from images to texts `[i, t]` and from texts to images `[t, i]`."""
  i, t = slice(None, num_images), slice(num_images, None)
  return jax.tree.map(lambda x: x[i, t], relations), jax.tree.map(lambda x: x[t, i], relations)


def intra_blocks(relations: Relations, num_images: int) -> tuple[Relations, Relations]:
  """The edges among images `[i, i]` and among texts `[t, t]`."""
  i, t = slice(None, num_images), slice(num_images, None)
  return jax.tree.map(lambda x: x[i, i], relations), jax.tree.map(lambda x: x[t, t], relations)


def best_matches(
  similarity: Float[Array, '... a k'], asker_mask: Bool[Array, '... a'], mask: Bool[Array, '... k']
) -> Float[Array, '... k']:
  """For each fragment `k`, its best match among the fragments `a`, each `a` normalised over `k`.

  Args:
    similarity: Cosines; the last axis is the one that is normalised over and kept.
    asker_mask: Which `a` are real.
    mask: Which `k` are real.

  Returns:
    The maximum over the real `a` of `leaky_relu(similarity, 0.1)` L2-normalised over the real `k`; 0 at padding.
  """
  activated = jnp.where(mask[..., None, :], jax.nn.leaky_relu(similarity, 0.1), 0.0)
  normalised = l2_normalize(activated)
  best = jnp.max(normalised, axis=-2, where=asker_mask[..., :, None], initial=-jnp.inf)
  return jnp.where(mask & jnp.isfinite(best), best, 0.0)


def summarise_matches(
  matches: Float[Array, '... k'], mask: Bool[Array, '... k'], top_k: int
) -> tuple[Float[Array, '...'], Float[Array, '... q']]:
  """Mean and `top_k` largest values of the real entries; missing ones of the latter are 0 (METHOD section 2, D)."""
  mean = jnp.sum(matches, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)
  kept = min(top_k, matches.shape[-1])
  largest, _ = jax.lax.top_k(jnp.where(mask, matches, -jnp.inf), kept)
  largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
  return mean, jnp.pad(largest, [(0, 0)] * (largest.ndim - 1) + [(0, top_k - kept)])


def fragment_relations(
  regions: Float[Array, 'i r d'],
  region_mask: Bool[Array, 'i r'],
  words: Float[Array, 't w d'],
  word_mask: Bool[Array, 't w'],
  *,
  top_k: int = 10,
  block_size: int = 16,
) -> tuple[InterRelations, InterRelations]:
  """Instance relations from fragment relations: every region of the batch with every word of the batch.

  Texts are taken `block_size` at a time, so that no `[i, t, r, w]` tensor exists. No gradient flows to the fragments.

  Args:
    regions, words: Fragments, normalised here.
    region_mask, word_mask: True for real fragments; padding takes part in nothing.
    top_k: K, the number of strongest matches kept per pair.
    block_size: Texts per block: time does not depend on it much, memory does.

  Returns:
    `(i2t, t2i)`: images asking texts `[i, t]` and texts asking images `[t, i]`.
  """
  regions = l2_normalize(jax.lax.stop_gradient(regions))
  words = l2_normalize(jax.lax.stop_gradient(words))

  def relate_text(text: tuple[Float[Array, 'w d'], Bool[Array, ' w']]):
    words, word_mask = text
    cosine = jnp.einsum('ird,wd->irw', regions, words, precision=PRECISION)
    each_word_mask = jnp.broadcast_to(word_mask, (*cosine.shape[:1], *word_mask.shape))  # [i, w]
    to_words = best_matches(cosine, region_mask, each_word_mask)  # [i, w]
    to_regions = best_matches(jnp.swapaxes(cosine, 1, 2), each_word_mask, region_mask)  # [i, r]
    return (
      InterRelations(*summarise_matches(to_regions, region_mask, top_k)),
      InterRelations(*summarise_matches(to_words, each_word_mask, top_k)),
    )

  i2t, t2i = jax.lax.map(relate_text, (words, word_mask), batch_size=block_size)  # mean [t, i], strongest [t, i, k]
  i2t = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), i2t)
  return jax.lax.stop_gradient((i2t, t2i))


def keep_most_similar(similarity: Float[Array, 'a c'], *, keep: float = 0.5) -> Bool[Array, 'a c']:
  """Each row keeps its `floor(keep * columns)` most similar columns, at least one; ties at the threshold all stay."""
  num_kept = max(int(keep * similarity.shape[1]), 1)
  threshold = jnp.sort(similarity, axis=1)[:, -num_kept][:, None]
  return similarity >= threshold


def connection_matrix(
  image_embeddings: Float[Array, 'i d'],
  text_embeddings: Float[Array, 't d'],
  i2t_mean: Float[Array, 'i t'],
  t2i_mean: Float[Array, 't i'],
  *,
  keep: float = 0.5,
) -> Bool[Array, 'n n']:
  """A: blocks `[[i2i, i2t], [t2i, t2t]]`, each thresholded by itself; intra blocks by cosine, inter by p."""

  def cosine(x):
    x = l2_normalize(jax.lax.stop_gradient(x))
    return jnp.matmul(x, x.T, precision=PRECISION)

  blocks = [[cosine(image_embeddings), i2t_mean], [t2i_mean, cosine(text_embeddings)]]
  return jnp.block([[keep_most_similar(block, keep=keep) for block in row] for row in blocks])


def cut_blocks(connection: Bool[Array, 'n n'], num_images: int, blocks: str) -> Bool[Array, 'n n']:
  """Ablation (a): only the `'intra'` or only the `'inter'` blocks of A stay; an instance always sees itself."""
  if blocks == 'all':
    return connection
  is_image = jnp.arange(len(connection)) < num_images
  same_modality = is_image[:, None] == is_image[None, :]
  kept = {'intra': same_modality, 'inter': ~same_modality}[blocks]
  return (connection & kept) | jnp.eye(len(connection), dtype=bool)


def gaussian_affinity(
  x: Float[Array, 'a d'], y: Float[Array, 'c d'], *, sigma: float = 1.0, squared: bool = False
) -> Float[Array, 'a c']:
  """`exp(-|x - y| / sigma)`, differentiable everywhere.

  METHOD section 2, D: the distance is not squared, as the release does; `squared=True` gives `exp(-|x - y|^2 / sigma)`.

  Rows nearer than a thousandth of their length count as the same point: distance and gradient 0. The distance comes
  from the dot product, whose rounding there is as large as the distance itself, and `[a, c, d]` differences are
  never stored.
  """
  x_squared, y_squared = jnp.sum(x * x, axis=-1)[:, None], jnp.sum(y * y, axis=-1)[None, :]
  distance_squared = x_squared + y_squared - 2 * jnp.matmul(x, y.T, precision=PRECISION)
  is_same = distance_squared <= 1e-6 * jnp.maximum(x_squared, y_squared)
  distance_squared = jnp.where(is_same, 1.0, distance_squared)
  distance = jnp.where(is_same, 0.0, distance_squared if squared else jnp.sqrt(distance_squared))
  return jnp.exp(-distance / sigma)
