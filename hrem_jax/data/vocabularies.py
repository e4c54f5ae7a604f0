"""Vocabularies and word vectors from elsewhere, for the BiGRU (METHOD section 1)."""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from hrem_jax.data.tokenizer import SPECIAL_TOKENS, TextTokenizer, whole_words
from hrem_jax.errors import UserError


def read_scan_vocabulary(path: pathlib.Path) -> TextTokenizer:
  """A vocabulary of VSE++, SCAN and their successors: JSON with `word2idx`, `idx2word` and `idx`.

  Words keep their numbers. There is no token for masked words in such a file: `<mask>` becomes the last number.

  Captions are split as for our own vocabularies, in lower case at spaces and at every punctuation mark, not by nltk as
  in those projects: `t-shirt` is three tokens, not one, and `don't` is `don`, `'`, `t` instead of `do`, `n't`. The
  words of the file that nltk alone makes are never met, and nearly all of the parts are words of the file, too; what
  the numbers mean is learnt from the captions as they are split here, so nothing depends on how others split them.

  Raises:
    UserError: The file is missing or not such a vocabulary; the message names the key.
  """
  content = _read_json(path)
  missing = [key for key in ('word2idx', 'idx2word', 'idx') if key not in content]
  if missing:
    raise UserError(f'{path}: no key {missing[0]!r}, expected word2idx, idx2word and idx as SCAN writes them')
  numbers = dict(content['word2idx']) if isinstance(content['word2idx'], dict) else {}
  _check_numbers(path, numbers)
  if content['idx'] != len(numbers):
    raise UserError(f'{path}: idx is {content["idx"]!r}, but word2idx has {len(numbers)} words')
  if content['idx2word'] != {str(number): word for word, number in numbers.items()}:
    raise UserError(f'{path}: idx2word is not the inverse of word2idx')
  for role, (_, token) in SPECIAL_TOKENS.items():
    if token not in numbers and role != 'mask':
      raise UserError(f'{path}: word2idx has no word {token}')
  numbers.setdefault(SPECIAL_TOKENS['mask'][1], len(numbers))
  return whole_words(numbers, source=str(path))


def _read_json(path: pathlib.Path) -> dict:
  if not path.is_file():
    raise UserError(f'{path}: no such file (config.model.vocabulary)')
  try:
    content = json.loads(path.read_text('utf-8'))
  except ValueError as error:  # UnicodeDecodeError is one
    raise UserError(f'{path}: not JSON: {error}') from error
  if not isinstance(content, dict):
    raise UserError(f'{path}: {type(content).__name__}, expected an object with word2idx, idx2word and idx')
  return content


def _check_numbers(path: pathlib.Path, numbers: dict[str, int]) -> None:
  """Every number from 0 to the count of words, once."""
  word_of = {}
  for word, number in numbers.items():
    if type(number) is not int or not 0 <= number < len(numbers):
      raise UserError(f'{path}: word2idx[{word!r}] is {number!r}, expected 0 to {len(numbers) - 1}')
    if number in word_of:
      raise UserError(f'{path}: word2idx gives {number} to {word_of[number]!r} and to {word!r}')
    word_of[number] = word


def read_word_vectors(
  path: pathlib.Path, words: Sequence[str], size: int
) -> tuple[Int[np.ndarray, ' v'], Float[np.ndarray, 'v f']]:
  """The vectors of some words from a text file: a word and `size` numbers a line, as GloVe and word2vec write them.

  Read line by line; of files with millions of words only those asked for are kept. A first line `COUNT SIZE` is
  skipped. A few "words" of glove.840B contain spaces: lines are taken apart from the right.

  Args:
    path: The file, UTF-8. A word that stands there twice has the vector of its first line.
    words: Whose vectors are wanted.
    size: Numbers per word.

  Returns:
    The positions in `words` of those found, in increasing order, and their vectors.

  Raises:
    UserError: No such file, another size, or a line that is not a word and numbers; the message names the line.
  """
  if not path.is_file():
    raise UserError(f'{path}: no such file (config.model.word_vectors)')
  wanted = {word.encode(): position for position, word in enumerate(words)}
  found = {}
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      fields = line.rsplit(maxsplit=size)
      if number == 1 and len(line.split()) == 2 and all(field.isdigit() for field in line.split()):
        continue
      _check_count(path, number, fields, size)
      position = wanted.get(fields[0].strip())
      if position is not None and position not in found:
        found[position] = _numbers(path, number, fields[1:])
  positions = sorted(found)
  vectors = np.array([found[position] for position in positions], np.float32).reshape(-1, size)
  return np.array(positions, np.int64), vectors


def _check_count(path: pathlib.Path, line_number: int, fields: list[bytes], size: int) -> None:
  """A word that ends in numbers is none: the line has too many of them."""
  too_many = 0
  for part in reversed(fields[0].split()[1:] if fields else []):
    if not _is_number(part):
      break
    too_many += 1
  count = len(fields) - 1 + too_many
  if count != size:
    raise UserError(
      f'{path}: line {line_number}: {max(count, 0)} numbers after the word, expected '
      f'config.model.bigru.word_size={size}'
    )


def _numbers(path: pathlib.Path, line_number: int, fields: list[bytes]) -> list[float]:
  wrong = next((field for field in fields if not _is_number(field)), None)
  if wrong is not None:
    raise UserError(f'{path}: line {line_number}: {wrong.decode(errors="replace")!r} is not a finite number')
  return [float(field) for field in fields]


def _is_number(field: bytes) -> bool:
  try:
    return math.isfinite(float(field))
  except ValueError:
    return False
