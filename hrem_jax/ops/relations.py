"""The cross-embedding association graph: who is connected to whom, how strongly (METHOD section 2; paper 3.2).

Everything here sees the whole global batch. `n = i + t` instances, images first; row = who asks.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.ops import text_blocks
from hrem_jax.ops.pooling import l2_normalize, largest
from hrem_jax.ops.text_blocks import Tiling, map_text_blocks

# Region-word and embedding products decide who is connected: a reduced-precision product would flip edges.
PRECISION = jax.lax.Precision.HIGHEST


def insert_largest(
  x: Float[Array, 'b k i'], mask: Bool[Array, '#b k #i'], *, count: int
) -> Float[Array, 'b {count} i']:
  """`pooling.largest` without a gradient: each fragment is inserted into the sorted list of those before it."""

  def insert(position, found):
    fragment = jax.lax.dynamic_slice_in_dim(real, position, 1, axis=1)
    better = jnp.concatenate([jnp.full_like(fragment, jnp.inf), found[:, :-1]], axis=1)  # who stands one place before
    return jnp.maximum(found, jnp.minimum(better, fragment))

  real = jnp.where(mask, x, -jnp.inf)
  nothing = jnp.full((x.shape[0], count, x.shape[2]), -jnp.inf, x.dtype)
  found = jax.lax.fori_loop(0, x.shape[1], insert, nothing, unroll=2)
  return jnp.where(jnp.isfinite(found), found, 0.0)


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
  cosine: Float[Array, '...'], mask: Bool[Array, '...'], asker_mask: Bool[Array, '...'], *, axis: int, asker_axis: int
) -> Float[Array, '...']:
  """For each fragment along `axis`, its best match among those along `asker_axis`.

  Args:
    cosine: Cosines of fragments.
    mask, asker_mask: Which fragments along either axis are real; of the rank of `cosine`, size 1 elsewhere.
    axis: This is normalised over (for each asker) and kept.
    asker_axis: This is maximised over and stays with size 1.

  Returns:
    The maximum over the real askers of `leaky_relu(cosine, 0.1)` L2-normalised over the real fragments; 0 at padding.
  """
  activated = jnp.where(mask, jax.nn.leaky_relu(cosine, 0.1), 0.0)
  normalised = l2_normalize(activated, axis=axis)
  best = jnp.max(normalised, axis=asker_axis, keepdims=True, where=asker_mask, initial=-jnp.inf)
  return jnp.where(mask & jnp.isfinite(best), best, 0.0)


def relate_block(
  words: Float[Array, 'b w d'],
  word_mask: Bool[Array, 'b w'],
  regions: Float[Array, 'd r i'],
  region_mask: Bool[Array, 'r i'],
  *,
  top_k: int,
  largest: Callable,
) -> tuple[InterRelations, InterRelations]:
  """Some texts with all images, axes swapped: `(i2t, t2i)` with `mean` `[b, i]` and `strongest` `[b, k, i]`.

  Images come last: all work but the product is the same for each of them and runs along them.
  """
  cosine = jnp.einsum('bwd,dri->bwri', words, regions, precision=PRECISION)
  word_mask, region_mask = word_mask[:, :, None, None], region_mask[None, None]

  def summary(axis: int, asker_axis: int, mask, asker_mask) -> InterRelations:
    matches = best_matches(cosine, mask, asker_mask, axis=axis, asker_axis=asker_axis).squeeze(asker_axis)
    mask = mask.squeeze(asker_axis)
    mean = jnp.sum(matches, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(matches.dtype)
    return InterRelations(mean, largest(matches, mask, count=top_k))

  return summary(2, 1, region_mask, word_mask), summary(1, 2, word_mask, region_mask)


def fragment_relations(
  regions: Float[Array, 'i r d'],
  region_mask: Bool[Array, 'i r'],
  words: Float[Array, 't w d'],
  word_mask: Bool[Array, 't w'],
  *,
  top_k: int = 10,
  tiling: Tiling | None = None,
) -> tuple[InterRelations, InterRelations]:
  """Instance relations from fragment relations: every region of the batch with every word of the batch.

  Texts are taken in blocks of nearly equal length, each cut to its longest text: no `[i, t, r, w]` tensor exists, and
  on CPU padding costs next to nothing. No gradient flows to the fragments.

  Args:
    regions, words: Fragments, normalised here.
    region_mask, word_mask: True for real fragments; padding takes part in nothing.
    top_k: K, the number of strongest matches kept per pair.
    tiling: None takes the one of the platform that the program is compiled for.

  Returns:
    `(i2t, t2i)`: images asking texts `[i, t]` and texts asking images `[t, i]`.
  """
  arguments = *jax.lax.stop_gradient((regions, words)), jnp.asarray(region_mask), jnp.asarray(word_mask)
  stream = functools.partial(_stream, top_k=top_k)
  if tiling is not None:
    return stream(*arguments, tiling=tiling, largest=largest)
  # On CPU insertion reads each match once; on an accelerator so few passes beat a loop over fragments.
  return jax.lax.platform_dependent(
    *arguments,
    cpu=functools.partial(stream, tiling=text_blocks.CPU, largest=insert_largest),
    default=functools.partial(stream, tiling=text_blocks.ACCELERATOR, largest=largest),
  )


def _stream(regions, words, region_mask, word_mask, *, top_k: int, tiling: Tiling, largest: Callable):
  # Normalised first: fused into the transposition every norm would be read across the rows of a cache line.
  regions = jnp.transpose(jax.lax.optimization_barrier(l2_normalize(regions)), (2, 1, 0))  # [d, r, i]

  def relate(words, mask):
    return relate_block(l2_normalize(words), mask, regions, region_mask.T, top_k=top_k, largest=largest)

  i2t, t2i = map_text_blocks(relate, words, word_mask, tiling=tiling)  # mean [t, i], strongest [t, k, i]
  i2t = InterRelations(i2t.mean.T, jnp.transpose(i2t.strongest, (2, 0, 1)))
  t2i = InterRelations(t2i.mean, jnp.swapaxes(t2i.strongest, 1, 2))
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
