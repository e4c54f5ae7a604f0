"""Which regions answer which words: what the association graph looks at, for one pair (METHOD section 2)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hrem_jax.ops.pooling import l2_normalize
from hrem_jax.ops.relations import PRECISION


def word_region_cosine(
  words: Float[Array | np.ndarray, 'w d'], regions: Float[Array | np.ndarray, 'r d']
) -> Float[Array, 'w r']:
  """`s[w, r]`: cosines of the real fragments of one text and one image, before anything is normalised over them."""
  words, regions = l2_normalize(jnp.asarray(words)), l2_normalize(jnp.asarray(regions))
  return jnp.matmul(words, regions.T, precision=PRECISION)


def join_pieces(values: Float[np.ndarray, 'p r'], word_of: Int[np.ndarray, ' p']) -> Float[np.ndarray, 'w r']:
  """The mean over the pieces of each word, words in their order.

  Args:
    values: One row per piece.
    word_of: The number of the word that a piece belongs to; never falls.
  """
  return np.stack([values[word_of == word].mean(axis=0) for word in np.unique(word_of)])
