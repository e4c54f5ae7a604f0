"""Texts to the tokens of a text tower, cut and padded as in its training, by the library `tokenizers` alone."""

import pathlib
import re
import string
from collections.abc import Sequence

import numpy as np
import tokenizers
from jaxtyping import Bool, Int
from tokenizers import normalizers

from hrem_jax.data.tokenizer import TextTokenizer, from_json
from hrem_jax.data.tokenizer_trial import panics_are_mistakes, read_tokenizer
from hrem_jax.errors import UserError
from hrem_jax.files import read_bytes, read_json_object
from hrem_jax.ports.json_settings import Settings

_CLIP_TOKENS = {'bos_token': '<|startoftext|>', 'eos_token': '<|endoftext|>', 'pad_token': '<|endoftext|>'}
_SIGLIP_TOKENS = {'eos_token': '</s>', 'pad_token': '</s>', 'do_lower_case': True}


class TowerTokenizer:
  """Texts to arrays of one width.

  A text's tokens stand between the start token, if the family has one, and the end token, which stays where a text is
  too long. What the tokenizer's file says of such tokens, of padding and of cutting is not asked: files of one family
  differ in it, their training did not.

  Args:
    tokenizer: Knows the pieces.
    start, end, pad: Numbers of the special tokens; no start token if None.
    width: Of all texts.
    pads_left: Whether the padding stands before the text.
    path: The file that the pieces were read from.
  """

  def __init__(
    self,
    tokenizer: tokenizers.Tokenizer,
    *,
    start: int | None,
    end: int,
    pad: int,
    width: int,
    pads_left: bool,
    path: pathlib.Path | None = None,
  ):
    self._tokenizer, self.width, self.path = tokenizer, width, path
    tokenizer.no_padding()
    tokenizer.no_truncation()
    self._before, self._after = ([] if start is None else [start]), [end]
    self.start, self.end, self.pad, self.pads_left = start, end, pad, pads_left

  @property
  def largest_token(self) -> int:
    return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

  def __call__(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, 't w'], Bool[np.ndarray, 't w']]:
    """Tokens, and where they are the text's (start and end included): False is padding."""
    with panics_are_mistakes('the tokenizer of a text tower'):
      encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
    tokens = np.full((len(texts), self.width), self.pad, np.int32)
    mask = np.zeros(tokens.shape, bool)
    room = self.width - len(self._before) - len(self._after)
    for row, encoding in enumerate(encodings):
      whole = [*self._before, *encoding.ids[:room], *self._after]
      where = slice(self.width - len(whole), None) if self.pads_left else slice(len(whole))
      tokens[row, where], mask[row, where] = whole, True
    return tokens, mask

  def text_tokenizer(self, *, source: str) -> TextTokenizer:
    """The same pieces for texts of any length, one by one.

    Raises:
      UserError: The special tokens are not those of a CLIP or SigLIP.
    """
    found = from_json(self._tokenizer.to_str(), source=source)
    theirs, ours = (self.start, self.end, self.pad), (found.start, found.end, found.pad)
    if theirs != ours:
      raise UserError(f'{source}: start, end and padding are the tokens {theirs}, expected {ours} in such a vocabulary')
    return found


def read_tower_tokenizer(folder: pathlib.Path, family: str, width: int) -> TowerTokenizer:
  """The tokenizer of a folder of two towers.

  Args:
    folder: Has `tokenizer.json` (a first SigLIP: `spiece.model` or that), and `tokenizer_config.json`, which tells the
      kinds of SigLIP apart; a CLIP may lack it.
    family: 'clip' or 'siglip'.
    width: Positions of the text tower.

  Raises:
    UserError: A file is missing or damaged, or a special token is not in the vocabulary.
  """
  config = folder / 'tokenizer_config.json'
  if family == 'siglip' and not config.is_file():
    raise UserError(f'{config}: no such file; it says how texts of a SigLIP are cleaned and padded')
  defaults = _CLIP_TOKENS if family == 'clip' else _SIGLIP_TOKENS
  settings = Settings(config, read_json_object(config) if config.is_file() else {}, defaults)
  path, tokenizer = _read_pieces(folder, is_first_siglip=family == 'siglip' and _is_first_siglip(settings))

  def number(key: str) -> int:
    value = settings.get(key)
    token = value.get('content') if isinstance(value, dict) else value
    found = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if found is None:
      raise UserError(f'{path}: the vocabulary has no token {token!r}, the {key} of {config.name}')
    return found

  steps = [*_cleaning(family, settings), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
  if steps:
    tokenizer.normalizer = normalizers.Sequence(steps)
  return TowerTokenizer(
    tokenizer,
    start=number('bos_token') if family == 'clip' else None,
    end=number('eos_token'),
    pad=number('pad_token'),
    width=width,
    pads_left=settings.choice('padding_side', {None: False, 'right': False, 'left': True}),
    path=path,
  )


def _is_first_siglip(settings: Settings) -> bool:
  return str(settings.get('tokenizer_class')).startswith('SiglipTokenizer')


def _read_pieces(folder: pathlib.Path, *, is_first_siglip: bool) -> tuple[pathlib.Path, tokenizers.Tokenizer]:
  """The file with the vocabulary, and what it says. The published program of the first SigLIP reads `spiece.model`."""
  path, original = folder / 'tokenizer.json', folder / 'spiece.model'
  if is_first_siglip and original.is_file():
    return original, read_tokenizer(read_bytes(original), source=str(original), kind='sentencepiece')
  if not path.is_file():
    raise UserError(
      f'{path}: no such file{" (nor spiece.model)" if is_first_siglip else ""}; on a machine with transformers, '
      "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it from the folder's vocabulary"
    )
  return path, read_tokenizer(read_bytes(path), source=str(path))


def _cleaning(family: str, settings: Settings) -> list[normalizers.Normalizer]:
  """What the texts of a family lost before they were cut into pieces, where the tokenizer's file may not say so.

  CLIP's does. The first SigLIP has neither upper case nor ASCII punctuation, SigLIP 2 (Gemma's tokenizer) no upper
  case. Cleaning twice changes nothing.
  """
  if family == 'clip':
    return []
  lower = [normalizers.Lowercase()]
  if not _is_first_siglip(settings):
    return lower
  punctuation = tokenizers.Regex(f'[{re.escape(string.punctuation)}]')
  return [
    *(lower if settings.flag('do_lower_case') else []),
    normalizers.Replace(punctuation, ''),
    normalizers.Replace(tokenizers.Regex(r'\s+'), ' '),
    normalizers.Strip(),
  ]
