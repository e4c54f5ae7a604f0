"""Vocabularies of text towers: no mask, perhaps no start, words that SentencePiece does not tell apart."""

import numpy as np
import pytest
import tokenizers as library
from tokenizers import decoders, models, normalizers, pre_tokenizers

from hrem_jax.data.augmentation import change_words, example_rng
from hrem_jax.data.pipeline import pad_tokens, text_chunks
from hrem_jax.data.tokenizer import TextTokenizer, from_json, tokenize
from hrem_jax.errors import UserError
from hrem_jax.report.answers import joined_words


def clip() -> TextTokenizer:
  """As CLIP's tokenizer.json: bytes, pieces that end a word marked, the special tokens at the end."""
  numbers = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
  for piece in [*(f'{letter}</w>' for letter in sorted(numbers)), 'do', 'dog</w>']:
    numbers[piece] = len(numbers)
  numbers |= {'<|startoftext|>': len(numbers), '<|endoftext|>': len(numbers) + 1}
  tokenizer = library.Tokenizer(
    models.BPE(numbers, [('d', 'o'), ('do', 'g</w>')], end_of_word_suffix='</w>', unk_token='<|endoftext|>')
  )
  tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
  split = pre_tokenizers.Split(library.Regex(r'[\p{L}]+|[^\s\p{L}]+'), 'removed', invert=True)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
  tokenizer.decoder = decoders.ByteLevel()
  return TextTokenizer(tokenizer, source='clip')


def sentence_piece(end: str, pad: str, extra=()) -> TextTokenizer:
  """As SigLIP's: a whole caption is one word for the library."""
  pieces = dict.fromkeys([pad, end, '<unk>', *extra, '▁', '▁a', '▁do', 'g', 't'])
  tokenizer = library.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=list(pieces).index('<unk>')))
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
  tokenizer.decoder = decoders.Metaspace()
  return TextTokenizer(tokenizer, source='siglip')


KINDS = {
  'clip': clip,
  'siglip': lambda: sentence_piece('</s>', '</s>'),
  'siglip 2': lambda: sentence_piece('<eos>', '<pad>', ('<bos>', '<mask>')),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def tokenizer(request) -> TextTokenizer:
  return request.param()


def test_special_tokens_are_those_of_the_tower():
  found = clip()
  assert found.mask is None
  assert found.pieces([found.start, found.end, found.pad]) == ['<|startoftext|>', '<|endoftext|>', '<|endoftext|>']
  for found, end, pad in ((KINDS['siglip'](), '</s>', '</s>'), (KINDS['siglip 2'](), '<eos>', '<pad>')):
    assert (found.start, found.mask) == (None, None)
    assert found.pieces([found.end, found.pad, found.unknown]) == [end, pad, '<unk>']


def test_words_are_numbered_and_shown_whole(tokenizer):
  (tokens, words), (none, _) = tokenizer.encode(['a dog got a dot', ''])
  assert sorted(set(words)) == [0, 1, 2, 3, 4]
  assert len(tokens) > 5
  assert none == []
  start = [] if tokenizer.start is None else ['⟨start⟩']
  shown, word_of = joined_words('a dog', tokenizer, len(tokenizer.encode(['a dog'])[0][0]) + tokenizer.num_special)
  assert list(shown) == [*start, 'a', 'dog', '⟨end⟩']
  assert word_of[-1] == len(shown) - 1


def test_words_of_any_alphabet_are_shown_as_they_are():
  shown, _ = joined_words('A café', clip(), 9)
  assert shown == ('⟨start⟩', 'a', 'café', '⟨end⟩')


def test_rows_have_the_start_and_end_of_the_tower(tokenizer):
  start = [] if tokenizer.start is None else [tokenizer.start]
  tokens, mask = pad_tokens([np.arange(10, 12), np.arange(10, 30)], 5, tokenizer)
  whole = [*start, 10, 11, tokenizer.end]
  assert tokens[0].tolist() == [*whole, *[tokenizer.pad] * (5 - len(whole))]
  assert tokens[1].tolist() == [*start, *range(10, 14 - len(start)), tokenizer.end]
  assert mask.tolist() == [[True] * len(whole) + [False] * (5 - len(whole)), [True] * 5]


def test_lengths_count_them_and_the_file_reads_back(tokenizer):
  again = from_json(tokenizer.to_json(), source='test')
  captions = ['a dog', 'a dog got a dot']
  tokenized = tokenize(captions, again)
  pieces = [len(tokens) for tokens, _ in tokenizer.encode(captions)]
  assert tokenized.lengths.tolist() == [count + tokenizer.num_special for count in pieces]
  mask = next(text_chunks(tokenized, again, 2, max_width=64))[1].mask
  assert mask.sum(axis=1).tolist() == tokenized.lengths.tolist()


def test_without_a_mask_words_are_left_out_instead():
  tokens, words = np.arange(10, 40), np.arange(30) // 2
  lengths, changed = [], 0
  for index in range(400):
    kept = change_words(tokens, words, example_rng(0, 0, index), 0.2, mask_token=None, vocab_size=9)
    lengths.append(len(kept))
    changed += int((kept < 10).sum())
  # Of the words that are hit nine tenths go, a tenth becomes random tokens; 6,000 words: five deviations are 0.03.
  assert abs(1 - np.mean(lengths) / 30 - 0.2 * 0.9) < 0.03
  assert 0 < changed / (400 * 30) < 0.04


def test_the_tokens_of_a_roberta_are_no_towers():
  with pytest.raises(UserError, match=r'no token \[CLS\] or <start>'):
    sentence_piece('</s>', '<pad>', ('<s>', '<mask>'))
