"""Captions are tokenised once; the numbers are kept in the user's cache, keyed by captions and vocabulary."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions, tokenize
from hrem_jax.errors import UserError
from hrem_jax.files import replacing
from hrem_jax.paths import local_path

FORMAT = 1  # of what is cached; part of the key


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
      flat = arrays['tokens'], arrays['words'], arrays['offsets']
      return TokenizedCaptions(*flat, num_special=tokenizer.num_special)
  except Exception:  # of a damaged zip there is hardly a class that is not raised
    pass  # not there, or damaged: made anew
  tokenized = tokenize(captions, tokenizer)
  try:
    with replacing(path) as temporary:
      np.savez(temporary, tokens=tokenized.tokens, words=tokenized.words, offsets=tokenized.offsets)
  except OSError:
    pass  # a cache is a convenience
  return tokenized


def _key(captions: Sequence[str], tokenizer: TextTokenizer) -> str:
  digest = hashlib.sha256(f'{FORMAT}\n{tokenizer.to_json()}\n'.encode())
  for caption in captions:
    digest.update(caption.encode())
    digest.update(b'\n')
  return digest.hexdigest()[:32]
