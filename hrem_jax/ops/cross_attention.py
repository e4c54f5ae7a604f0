"""Cross-modal attention: each fragment of one modality asks all fragments of the other (SCAN: Lee et al., ECCV 2018).

`m` instances ask with `q` fragments each, `n` instances of `k` fragments are asked. What exists for every pair of
fragments is `[n, k, q, m]`: normalisations run over `k` or `q`, and all of them along the last axis.

Of the context `c = sum_k a_k y_k` of an asker `x` only `x.c` and `|c|` are needed: `x.c = sum_k a_k x.y_k` is a sum of
products that exist already, and `|c|^2 = a^T G a` with the Gram matrix `G = Y Y^T` of the asked instance. So no context
is ever computed, and what would be a product over the embedding size is one over `k`.
"""

from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hrem_jax.ops.pooling import l2_normalize, safe_norm, safe_sqrt
from hrem_jax.ops.relations import PRECISION
from hrem_jax.ops.text_blocks import Tiling, map_text_blocks, on_this_platform

COSINE_EPSILON = 1e-8


def fragment_products(asked: Float[Array, 'n k d'], askers: Float[Array, 'q m d']) -> Float[Array, 'n k q m']:
  """Dot products of all fragments."""
  # One product of two matrices as they lie in memory: `einsum` would transpose the large result.
  n, k, d = asked.shape
  products = jnp.matmul(asked.reshape(n * k, d), askers.reshape(-1, d).T, precision=PRECISION)
  return products.reshape(n, k, *askers.shape[:2])


def gram_matrices(asked: Float[Array, 'n k d']) -> Float[Array, 'n k k']:
  """Dot products among the fragments of each instance."""
  return jnp.einsum('nkd,nld->nkl', asked, asked, precision=PRECISION)


def _clip(products: Float[Array, '...']) -> Float[Array, '...']:
  return jax.nn.leaky_relu(products, 0.1)


# The first normalisation, of `products [n, k, q, m]` that are 0 at padding, with the mask of the askers `[q, m]`.
NORMALISATIONS = MappingProxyType(
  {
    'clipped_l2norm': lambda products, _: l2_normalize(_clip(products), axis=2),
    'l2norm': lambda products, _: l2_normalize(products, axis=2),
    'clipped': lambda products, _: _clip(products),
    'softmax': lambda products, mask: jax.nn.softmax(products, axis=2, where=mask),
    'no_norm': lambda products, _: products,
  }
)


def cross_attention_weights(
  products: Float[Array, 'n k q m'],
  asked_mask: Bool[Array, 'n k'],
  asker_mask: Bool[Array, 'q m'],
  *,
  normalisation: str,
  inverse_temperature: float,
) -> Float[Array, 'n k q m']:
  """How much each asker attends to each fragment of an instance: adds up to 1 over `k`, and is 0 at padding.

  Args:
    products: Of askers and asked, 0 at padding.
    asked_mask, asker_mask: True for real fragments.
    normalisation: A key of `NORMALISATIONS`: over the askers, before the softmax over the asked.
    inverse_temperature: lambda of that softmax.

  Returns:
    The weights. An instance without fragments has none: all 0.
  """
  normalised = NORMALISATIONS[normalisation](products, asker_mask)
  return jax.nn.softmax(inverse_temperature * normalised, axis=1, where=asked_mask[:, :, None, None])


def attended_cosine(
  weights: Float[Array, 'n k q m'],
  products: Float[Array, 'n k q m'],
  gram: Float[Array, 'n k k'],
  asker_norm: Float[Array, 'q m'],
) -> Float[Array, 'n q m']:
  """`cos(x, c) = x.c / max(|x| |c|, 1e-8)` of each asker `x` and its context `c`, the weighted sum of the asked.

  Args:
    weights: Of the sum; 0 at padding.
    products: Of `x` and the asked fragments.
    gram: Of the asked fragments.
    asker_norm: `|x|`.

  Returns:
    The cosine; 0 where the context is empty, with a gradient of 0.
  """
  n, k, q, m = weights.shape
  dot = jnp.sum(weights * products, axis=1)
  contexts = jnp.matmul(gram, weights.reshape(n, k, q * m), precision=PRECISION).reshape(weights.shape)
  context_norm = safe_sqrt(jnp.sum(weights * contexts, axis=1))
  return dot / jnp.maximum(asker_norm * context_norm, COSINE_EPSILON)


def _log_sum_exp(values, mask, factor):
  is_any = jnp.any(mask, axis=0)
  # Without askers the sum would be 0: the inner `where` keeps the logarithm away from it, the outer one gives 0.
  total = jax.nn.logsumexp(factor * values, axis=1, where=mask | ~is_any)
  return jnp.where(is_any, total / factor, 0.0)


def _maximum(values, mask, _):
  largest = jnp.max(values, axis=1, where=mask, initial=-jnp.inf)
  return jnp.where(jnp.any(mask, axis=0), largest, 0.0)


# From the askers' values `[n, q, m]` to `[n, m]`: with their mask `[q, m]`, and mu of LSE, `log(sum exp(mu v)) / mu`.
# An instance without askers has 0.
AGGREGATIONS = MappingProxyType(
  {
    'mean': lambda values, mask, _: jnp.sum(values, 1, where=mask) / jnp.maximum(jnp.sum(mask, axis=0), 1),
    'lse': _log_sum_exp,
    'max': _maximum,
    'sum': lambda values, mask, _: jnp.sum(values, axis=1, where=mask),
  }
)


def attended_scores(
  asked: Float[Array, 'n k d'],
  asked_mask: Bool[Array, 'n k'],
  gram: Float[Array, 'n k k'],
  askers: Float[Array, 'q m d'],
  asker_mask: Bool[Array, 'q m'],
  *,
  normalisation: str,
  inverse_temperature: float,
  aggregation: str,
  lse_factor: float,
) -> Float[Array, 'n m']:
  """The score of each instance that asks with each that is asked; fragments are 0 at padding."""
  products = fragment_products(asked, askers)
  weights = cross_attention_weights(
    products, asked_mask, asker_mask, normalisation=normalisation, inverse_temperature=inverse_temperature
  )
  asker_norm = safe_norm(askers)
  return AGGREGATIONS[aggregation](attended_cosine(weights, products, gram, asker_norm), asker_mask, lse_factor)


def cross_attention_scores(
  regions: Float[Array, 'i r d'],
  region_mask: Bool[Array, 'i r'],
  words: Float[Array, 't w d'],
  word_mask: Bool[Array, 't w'],
  *,
  asks: str,
  inverse_temperature: float,
  normalisation: str = 'clipped_l2norm',
  aggregation: str = 'mean',
  lse_factor: float = 1.0,
  tiling: Tiling | None = None,
) -> Float[Array, 'i t']:
  """SCAN's score of all images with all texts, in the memory of a block of texts, with gradients (paper section 3).

  Args:
    regions, words: Fragments, of unit norm in the paper; padding may hold anything.
    region_mask, word_mask: True for real fragments.
    asks: `words` (text to image: each word attends to the regions) or `regions` (image to text).
    inverse_temperature: lambda of the softmax over the asked fragments.
    normalisation: A key of `NORMALISATIONS`, over the askers.
    aggregation: A key of `AGGREGATIONS`: what becomes of the askers' cosines.
    lse_factor: mu of `lse`. Its sum is not a mean: more askers score `log(count) / mu` higher, as in the paper.
    tiling: None takes the one of the platform that the program is compiled for.

  Returns:
    Scores. One without askers is 0.
  """
  region_mask, word_mask = jnp.asarray(region_mask), jnp.asarray(word_mask)
  regions = jnp.where(region_mask[..., None], regions, 0.0)
  words = jnp.where(word_mask[..., None], words, 0.0)
  settings = dict(
    normalisation=normalisation,
    inverse_temperature=inverse_temperature,
    aggregation=aggregation,
    lse_factor=lse_factor,
  )

  def words_ask() -> Callable:
    gram = gram_matrices(regions)

    def score(words, mask):
      return attended_scores(regions, region_mask, gram, jnp.swapaxes(words, 0, 1), mask.T, **settings).T

    return score

  def regions_ask() -> Callable:
    askers = jnp.swapaxes(regions, 0, 1)  # [r, i, d]

    def score(words, mask):
      return attended_scores(words, mask, gram_matrices(words), askers, region_mask.T, **settings)

    return score

  score = {'words': words_ask, 'regions': regions_ask}[asks]()
  by_text = on_this_platform(lambda tiling: map_text_blocks(score, words, word_mask, tiling=tiling), tiling)
  return by_text.T
