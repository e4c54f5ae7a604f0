"""Captions to token numbers: BERT's WordPiece, whole words, CLIP's and SigLIP's pieces, by the library `tokenizers`."""

import collections
import itertools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
import tqdm
from jaxtyping import Int
from tokenizers import models, normalizers, pre_tokenizers

from hrem_jax.data.bert_vocabulary import WHOLE, read_bert_vocabulary
from hrem_jax.data.tokenizer_trial import panics_are_mistakes, read_tokenizer
from hrem_jax.errors import UserError
from hrem_jax.files import read_text

# Role -> how BERT and how our own vocabularies call it.
SPECIAL_TOKENS = {
  'pad': ('[PAD]', '<pad>'),
  'start': ('[CLS]', '<start>'),
  'end': ('[SEP]', '<end>'),
  'unknown': ('[UNK]', '<unk>'),
  'mask': ('[MASK]', '<mask>'),
}


# Those of text towers, which have no mask and often no start: CLIP, SigLIP 2 (Gemma's), SigLIP (SentencePiece).
_TOWER_TOKENS = (
  {'start': '<|startoftext|>', 'end': '<|endoftext|>', 'pad': '<|endoftext|>', 'unknown': '<|endoftext|>'},
  {'end': '<eos>', 'pad': '<pad>', 'unknown': '<unk>'},
  {'end': '</s>', 'pad': '</s>', 'unknown': '<unk>'},
)
_SPACE = '▁'  # begins the pieces of SentencePiece that begin a word


class TextTokenizer:
  """A vocabulary and how captions are split into it.

  `words` below numbers the basic tokens of a caption (split at spaces and punctuation): augmentation drops whole
  words, not pieces.

  Attributes:
    pad, end, unknown: Numbers of special tokens.
    start, mask: The same, or None where a vocabulary has none.
  """

  def __init__(self, tokenizer: tokenizers.Tokenizer, *, source: str):
    self._tokenizer, self._source = tokenizer, source
    tokenizer.no_padding()
    tokenizer.no_truncation()
    self.pad, self.start, self.end, self.unknown, self.mask = _special_tokens(tokenizer, source)
    self._has_spaces = self.mask is None and any(piece.startswith(_SPACE) for piece in tokenizer.get_vocab())

  @property
  def num_special(self) -> int:
    """Tokens that are added to a caption: start, if there is one, and end."""
    return 1 + (self.start is not None)

  @property
  def largest_token(self) -> int:
    """Numbers may have gaps: embeddings need a row more than this."""
    return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

  @property
  def vocab_size(self) -> int:
    return self._tokenizer.get_vocab_size()

  def encode(self, captions: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """For each caption its token numbers, without start and end, and the word that each token is a piece of."""
    with panics_are_mistakes(self._source):
      encodings = self._tokenizer.encode_batch(list(captions), add_special_tokens=False)
    return [(encoding.ids, self._words(encoding)) for encoding in encodings]

  def _words(self, encoding: tokenizers.Encoding) -> list[int]:
    if not self._has_spaces:
      return encoding.word_ids
    # SentencePiece may take a whole caption for one word.
    begins = [piece.startswith(_SPACE) for piece in encoding.tokens]
    return [count - begins[0] for count in itertools.accumulate(begins)]

  def unknown_words(self, text: str) -> list[str]:
    """Those of a text that are not in the vocabulary, each once, as they are written there; no punctuation."""
    with panics_are_mistakes(self._source):
      encoding = self._tokenizer.encode(text, add_special_tokens=False)
    places = zip(encoding.ids, encoding.offsets, strict=True)
    words = dict.fromkeys(text[start:end] for number, (start, end) in places if number == self.unknown)
    return [word for word in words if any(map(str.isalnum, word))]

  def word(self, tokens: Sequence[int]) -> str:
    """The word that some tokens are the pieces of."""
    if self._has_spaces:
      return ''.join(self.pieces(tokens)).replace(_SPACE, ' ').strip()
    if self.mask is None:
      with panics_are_mistakes(self._source):
        whole = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
      return whole.replace('</w>', ' ').strip()  # CLIP's end of a word
    first, *rest = self.pieces(tokens)
    return first + ''.join(piece.removeprefix('##') for piece in rest)

  def pieces(self, tokens: Iterable[int]) -> list[str]:
    """The strings of some tokens."""
    return [self._tokenizer.id_to_token(int(token)) for token in tokens]

  def to_json(self) -> str:
    """Everything about it: `from_json` reads it back, and so does `tokenizers.Tokenizer.from_str`."""
    return self._tokenizer.to_str()


def _special_tokens(tokenizer: tokenizers.Tokenizer, source: str) -> list[int | None]:
  """Their numbers, in the order of `SPECIAL_TOKENS`; those of a tower where all of these are there."""
  number_of = tokenizer.token_to_id
  is_of_ours = all(any(number_of(name) is not None for name in names) for names in SPECIAL_TOKENS.values())
  for names in _TOWER_TOKENS:
    # Roberta's vocabularies have SigLIP's tokens, and a start.
    is_other = is_of_ours or ('start' not in names and number_of('<s>') is not None)
    if not is_other and all(number_of(name) is not None for name in names.values()):
      return [number_of(names[role]) if role in names else None for role in SPECIAL_TOKENS]
  numbers = []
  for names in SPECIAL_TOKENS.values():
    found = [number for number in map(number_of, names) if number is not None]
    if not found:
      raise UserError(f'{source}: the vocabulary has no token {" or ".join(names)}')
    numbers.append(found[0])
  return numbers


def from_json(text: str, *, source: str) -> TextTokenizer:
  """The tokenizer in the text of a file, tried in a process of its own first.

  Raises:
    UserError: It is damaged, cannot cut sentences, or has not the special tokens.
  """
  return TextTokenizer(read_tokenizer(text.encode(), source=source), source=source)


def wordpiece(
  vocabulary: dict[str, int], *, lowercase: bool = True, source: str = 'vocabulary', **normalizer: bool | None
) -> TextTokenizer:
  """BERT's tokenizer: basic tokens, then the longest pieces of the vocabulary, greedily from the left.

  Args:
    vocabulary: Pieces and their numbers.
    lowercase: Whether there are no capitals; without them there are no accents, unless `strip_accents` says something.
    source: For messages.
    normalizer: `strip_accents` and `handle_chinese_chars` of `tokenizers.normalizers.BertNormalizer`.
  """
  tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token='[UNK]', max_input_chars_per_word=100))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, **normalizer)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return TextTokenizer(tokenizer, source=source)


def read_wordpiece(folder: pathlib.Path) -> TextTokenizer:
  """The tokenizer of a Hugging Face folder of a BERT: what `transformers` makes of it.

  One thing is the authors': what a caption spells as `[MASK]` is no special token, but words and punctuation.
  """
  found = read_bert_vocabulary(folder)
  if found is None:
    path = folder / WHOLE
    return from_json(read_text(path), source=str(path))
  return wordpiece(found.pieces, source=found.source, **found.normalizer)


def whole_words(vocabulary: dict[str, int], *, source: str) -> TextTokenizer:
  """BERT's basic tokens in lower case, each a word of the vocabulary or `<unk>`."""
  tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  return TextTokenizer(tokenizer, source=source)


def build_vocabulary(captions: Sequence[str], *, min_count: int = 1) -> TextTokenizer:
  """A whole-word tokenizer from (training) captions: the special tokens, then words by falling count, then by name."""
  normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
  counts = collections.Counter()
  # No word goes over a space: the few strings between spaces are normalised once each, not once a caption.
  strings = collections.Counter(itertools.chain.from_iterable(caption.split(' ') for caption in captions))
  for string, count in strings.items():
    for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(string)):
      counts[word] += count
  words = sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word))
  special = [ours for _, ours in SPECIAL_TOKENS.values()]
  vocabulary = {word: number for number, word in enumerate([*special, *words])}
  return whole_words(vocabulary, source='vocabulary of the training captions')


class TokenizedCaptions:
  """The tokens of many captions in flat arrays; caption `j` has the slice `offsets[j]:offsets[j + 1]`.

  Args:
    tokens: Token numbers without start and end.
    words: The word of its caption that each token is a piece of.
    offsets: One more than there are captions.
    num_special: Tokens that a caption gets beside them: start and end, or end alone.
  """

  def __init__(
    self,
    tokens: Int[np.ndarray, ' n'],
    words: Int[np.ndarray, ' n'],
    offsets: Int[np.ndarray, ' t+1'],
    *,
    num_special: int = 2,
  ):
    self.tokens, self.words, self.offsets, self._num_special = tokens, words, offsets, num_special

  def __len__(self) -> int:
    return len(self.offsets) - 1

  @property
  def lengths(self) -> Int[np.ndarray, ' t']:
    """Tokens per caption, start and end included."""
    return np.diff(self.offsets) + self._num_special

  def caption(self, index: int) -> tuple[Int[np.ndarray, ' w'], Int[np.ndarray, ' w']]:
    """Tokens and words of one caption."""
    where = slice(self.offsets[index], self.offsets[index + 1])
    return self.tokens[where], self.words[where]


def tokenize(captions: Sequence[str], tokenizer: TextTokenizer, *, chunk: int = 20_000) -> TokenizedCaptions:
  """Tokenises captions, a chunk at a time: the library's objects are many times larger than the numbers.

  What takes more than a few seconds shows a bar.
  """
  none = np.zeros(0, np.int32)
  tokens, words, lengths = [none], [none], []
  with tqdm.tqdm(total=len(captions), desc='captions to tokens', unit=' captions', delay=3, mininterval=1) as bar:
    for start in range(0, len(captions), chunk):
      encoded = tokenizer.encode(captions[start : start + chunk])
      lengths += [len(caption_tokens) for caption_tokens, _ in encoded]
      for column, parts in enumerate((tokens, words)):
        numbers = itertools.chain.from_iterable(pair[column] for pair in encoded)
        parts.append(np.fromiter(numbers, np.int32))
      bar.update(len(encoded))
  flat = [np.concatenate(parts) for parts in (tokens, words)]
  offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
  return TokenizedCaptions(*flat, offsets, num_special=tokenizer.num_special)
