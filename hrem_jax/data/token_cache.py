"""Captions are tokenised once; the numbers are kept in the user's cache, keyed by captions and vocabulary."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions, tokenize
from hrem_jax.errors import UserError
from hrem_jax.files import replacing
from hrem_jax.paths import local_path

FORMAT = 2  # of what is cached; part of the key


def cache_folder(configured: str = '') -> pathlib.Path | None:
  """`configured`, or the user's cache folder; None where there is no home, as in containers under any user id."""
  if configured:
    return local_path(configured)
  with contextlib.suppress(UserError):
    return local_path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'hrem_jax'


def cached_tokens(
  captions: Sequence[str], tokenizer: TextTokenizer, *, folder: pathlib.Path | None
) -> TokenizedCaptions:
  """`tokenize(captions, tokenizer)`, from the cache where it is there; without a folder that can be written, anew."""
  if folder is None:
    return tokenize(captions, tokenizer)
  path = folder / 'tokens' / f'{_key(captions, tokenizer)}.npz'
  try:
    with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
      tokens, words, offsets = (_flat(arrays[name]) for name in ('tokens', 'words', 'offsets'))
    if _fit_together(tokens, words, offsets, len(captions), tokenizer.largest_token):
      return TokenizedCaptions(tokens, words, offsets, num_special=tokenizer.num_special)
  except Exception:  # of a damaged zip there is hardly a class that is not raised
    pass  # not there, or damaged: made anew, as where its parts do not fit together
  tokenized = tokenize(captions, tokenizer)
  try:
    with replacing(path) as temporary:
      np.savez(temporary, tokens=tokenized.tokens, words=tokenized.words, offsets=tokenized.offsets)
  except OSError:
    pass  # a cache is a convenience
  return tokenized


def _flat(array: np.ndarray) -> Int[np.ndarray, ' n']:
  """Raises ValueError where an array is not what is written here: whole numbers in one dimension."""
  if array.ndim != 1 or array.dtype not in (np.int32, np.int64):
    raise ValueError(f'{array.dtype} {array.shape}')
  return array


def _fit_together(
  tokens: Int[np.ndarray, ' n'],
  words: Int[np.ndarray, ' n'],
  offsets: Int[np.ndarray, ' o'],
  num_captions: int,
  largest_token: int,
) -> bool:
  """Whether arrays can be the tokens of so many captions: none of another vocabulary, each in one caption."""
  return (
    len(offsets) == num_captions + 1
    and len(tokens) == len(words) == offsets[-1]
    and offsets[0] == 0
    and bool((np.diff(offsets) >= 0).all())
    and tokens.min(initial=0) >= 0
    and tokens.max(initial=0) <= largest_token
    and words.min(initial=0) >= 0
  )


def _key(captions: Sequence[str], tokenizer: TextTokenizer) -> str:
  digest = hashlib.sha256(f'{FORMAT}\n{tokenizer.to_json()}\n'.encode())
  for caption in captions:
    encoded = caption.encode()
    digest.update(b'%d\n' % len(encoded))  # no mark between two captions would be safe: one may hold it
    digest.update(encoded)
  return digest.hexdigest()[:32]
