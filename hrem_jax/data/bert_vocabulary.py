"""What the folder of a BERT says about its tokens, as `transformers` takes it."""

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from hrem_jax.errors import UserError, shown
from hrem_jax.files import read_json_object, read_text

VOCABULARY, WHOLE, SETTINGS = 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'
# Classes whose normalisation is that of the settings, whatever `tokenizer.json` says of it.
_BERT_CLASSES = ('BertTokenizer', 'BertTokenizerFast', 'DistilBertTokenizer', 'DistilBertTokenizerFast')
_WHOLE_CLASSES = ('PreTrainedTokenizerFast', 'TokenizersBackend')  # of which `tokenizer.json` says all
_SPECIAL = {
  'unk_token': '[UNK]',
  'sep_token': '[SEP]',
  'pad_token': '[PAD]',
  'cls_token': '[CLS]',
  'mask_token': '[MASK]',
}


class BertVocabulary(NamedTuple):
  """The pieces and their numbers, and what happens to a text before it is cut into them."""

  pieces: dict[str, int]
  normalizer: dict[str, Any]  # of `tokenizers.normalizers.BertNormalizer`
  source: str


def read_bert_vocabulary(folder: pathlib.Path) -> BertVocabulary | None:
  """The vocabulary of a Hugging Face folder; None where its `tokenizer.json` is to be used as it is.

  Raises:
    UserError: There is none, or a setting that changes tokens is none that we know; the message names it.
  """
  vocabulary, whole, path = folder / VOCABULARY, folder / WHOLE, folder / SETTINGS
  if not vocabulary.is_file() and not whole.is_file():
    raise UserError(f'{folder}: neither {VOCABULARY} nor {WHOLE}: the tokenizer of the BERT is expected there')
  settings = read_json_object(path) if path.is_file() else {}
  kind = settings.get('tokenizer_class')
  if kind in _WHOLE_CLASSES and whole.is_file():
    return None
  if kind not in (None, *_BERT_CLASSES):
    known = ', '.join(_BERT_CLASSES + _WHOLE_CLASSES)
    raise UserError(f'{path}: tokenizer_class is {shown(kind)}, expected one of {known}')
  if vocabulary.is_file():
    pieces, source = numbered_lines(read_text(vocabulary)), vocabulary
  else:
    pieces, source = _pieces_of(whole), whole
  normalizer = {
    'lowercase': _flag(path, settings, 'do_lower_case', True),
    'strip_accents': _flag(path, settings, 'strip_accents', None),
    'handle_chinese_chars': _flag(path, settings, 'tokenize_chinese_chars', True),
  }
  _check_special_tokens(path, settings)
  _check_added_tokens(folder, settings)
  return BertVocabulary(pieces, normalizer, str(source))


def numbered_lines(text: str) -> dict[str, int]:
  """The vocabulary that a `vocab.txt` holds: a piece a line, with whatever ends lines have on any system."""
  lines = text.replace('\r\n', '\n').removesuffix('\n').split('\n')
  return {piece: number for number, piece in enumerate(lines)}


def _pieces_of(path: pathlib.Path) -> dict[str, int]:
  model = read_json_object(path).get('model')
  pieces = model.get('vocab') if isinstance(model, dict) else None
  is_wordpiece = isinstance(model, dict) and model.get('type', 'WordPiece') == 'WordPiece'
  if not is_wordpiece or not isinstance(pieces, dict) or not all(type(number) is int for number in pieces.values()):
    raise UserError(f'{path}: not a tokenizer file of a BERT: expected a model of type WordPiece with its vocab')
  return pieces


def _flag(path: pathlib.Path, settings: dict, key: str, default: bool | None) -> bool | None:
  value = settings.get(key, default)
  if value is not None and not isinstance(value, bool):
    raise UserError(f'{path}: {key} is {shown(value)}, expected true or false')
  return default if value is None else value


def _check_special_tokens(path: pathlib.Path, settings: dict) -> None:
  for key, ours in _SPECIAL.items():
    value = settings.get(key, ours)
    found = value.get('content') if isinstance(value, dict) else value
    if found not in (ours, None):
      raise UserError(f'{path}: {key} is {shown(found)}, expected {ours!r}')


def _check_added_tokens(folder: pathlib.Path, settings: dict) -> None:
  """Words that were added later would be cut into pieces here."""
  listed = settings.get('added_tokens_decoder')
  places = [(folder / SETTINGS, 'added_tokens_decoder', _contents(listed.values() if isinstance(listed, dict) else []))]
  path = folder / 'added_tokens.json'
  if path.is_file():
    places.append((path, 'token', list(read_json_object(path))))
  if (folder / WHOLE).is_file():
    listed = read_json_object(folder / WHOLE).get('added_tokens')
    places.append((folder / WHOLE, 'added_tokens', _contents(listed if isinstance(listed, list) else [])))
  for path, key, tokens in places:
    more = [token for token in tokens if token not in _SPECIAL.values()]
    if more:
      raise UserError(f'{path}: {key} has {shown(more[0])}, expected none but {", ".join(_SPECIAL.values())}')


def _contents(tokens: Iterable[Any]) -> list[Any]:
  return [token.get('content') for token in tokens if isinstance(token, dict)]
