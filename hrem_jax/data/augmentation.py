"""Random changes of one training example, on the host (METHOD section 5)."""

import numpy as np
from jaxtyping import Bool, Int

MASKED, REPLACED = 0.5, 0.1  # of the words that are hit; the rest is deleted


def example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
  """Randomness of one example in one epoch, whichever process or thread asks for it."""
  return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, index]))


def drop_regions(mask: Bool[np.ndarray, ' r'], rng: np.random.Generator, probability: float) -> Bool[np.ndarray, ' r']:
  """Each real region stays with `1 - probability`; if all would go, one of them stays."""
  kept = mask & (rng.random(len(mask)) >= probability)
  if not kept.any():
    kept[rng.choice(np.flatnonzero(mask))] = True
  return kept


def change_words(
  tokens: Int[np.ndarray, ' w'],
  words: Int[np.ndarray, ' w'],
  rng: np.random.Generator,
  probability: float,
  *,
  mask_token: int | None,
  vocab_size: int,
) -> Int[np.ndarray, ' v']:
  """Hits each word (all its pieces) with `probability`: masked, replaced by random tokens, or deleted.

  Args:
    tokens: Token numbers of a caption, without start and end.
    words: The word that each token is a piece of, counted from 0.
    rng: Randomness of this example.
    probability: That a word is hit.
    mask_token: Stands for every piece of a masked word; where a vocabulary has none, such words are deleted, too.
    vocab_size: Random tokens are drawn below it.

  Returns:
    The tokens that are left, possibly none.
  """
  if not len(tokens):
    return tokens
  draw = (rng.random(words[-1] + 1) / probability if probability else np.full(words[-1] + 1, np.inf))[words]
  random_tokens = rng.integers(vocab_size, size=len(tokens))
  is_masked = draw < MASKED
  is_replaced = ~is_masked & (draw < MASKED + REPLACED)
  is_deleted = (draw < 1) & ~is_masked & ~is_replaced
  if mask_token is None:
    mask_token, is_deleted = 0, is_deleted | is_masked
  changed = np.where(is_masked, mask_token, np.where(is_replaced, random_tokens, tokens))
  return changed[~is_deleted].astype(tokens.dtype)
