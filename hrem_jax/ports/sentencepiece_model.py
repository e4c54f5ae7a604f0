"""A unigram model of SentencePiece (`spiece.model`, a protocol buffer) for the library `tokenizers`."""

import pathlib
import struct
from collections.abc import Iterator

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from hrem_jax.errors import UserError, one_line

# Numbers of fields: of a model, of one of its pieces, of what it was trained with, of its normalisation.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _CHARACTER_MAP = 3, 2
_UNIGRAM, _UNKNOWN, _BYTE = 1, 2, 6  # values of types


def read_sentencepiece(path: pathlib.Path) -> tokenizers.Tokenizer:
  """The tokenizer that a file of SentencePiece describes: its characters' normalisation, words, pieces.

  Raises:
    UserError: The file is damaged or holds no unigram model.
  """
  try:
    return _tokenizer(path.read_bytes())
  except Exception as error:  # whatever the library and the bytes come to
    raise UserError(f'{path}: not a unigram model of SentencePiece: {one_line(error)}') from error


def _tokenizer(content: bytes) -> tokenizers.Tokenizer:
  pieces, types, character_map, model_type = [], [], b'', _UNIGRAM
  for number, value in _fields(content):
    if number == _PIECES:
      piece = dict(_fields(value))
      (score,) = struct.unpack('<f', piece.get(_SCORE, bytes(4)))
      pieces.append((piece[_TEXT].decode('utf-8'), score))
      types.append(piece.get(_TYPE))
    elif number == _TRAINER:
      model_type = dict(_fields(value)).get(_MODEL_TYPE, _UNIGRAM)
    elif number == _NORMALIZER:
      character_map = dict(_fields(value)).get(_CHARACTER_MAP, b'')
  if model_type != _UNIGRAM:
    raise ValueError(f'its type is {model_type}')
  if _UNKNOWN not in types:
    raise ValueError('no piece stands for what is unknown')
  tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, types.index(_UNKNOWN), byte_fallback=_BYTE in types))
  if character_map:
    tokenizer.normalizer = normalizers.Precompiled(character_map)
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  return tokenizer


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
  """Number and value of each field of a message: whole numbers are `int`, everything else is bytes."""
  position = 0

  def whole() -> int:
    nonlocal position
    value = shift = 0
    while True:
      byte = content[position]
      position, value, shift = position + 1, value | (byte & 127) << shift, shift + 7
      if byte < 128:
        return value

  while position < len(content):
    key = whole()
    kind = key & 7
    if kind == 0:
      yield key >> 3, whole()
      continue
    if kind not in (1, 2, 5):
      raise ValueError(f'a field of kind {kind} at byte {position}')
    size = whole() if kind == 2 else 8 if kind == 1 else 4
    value = content[position : position + size]
    if len(value) != size:
      raise ValueError('it is cut off')
    position += size
    yield key >> 3, value
