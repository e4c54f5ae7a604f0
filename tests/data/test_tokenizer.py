import collections
import json

import numpy as np
import pytest
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from hrem_jax.data import token_cache
from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.errors import UserError


@pytest.fixture(scope='module')
def bert(golden):
  vocabulary = json.loads((golden / 'bert_vocabulary_subset.json').read_text('utf-8'))
  return tokenizers.wordpiece(vocabulary)


def golden_cases(golden):
  return json.loads((golden / 'tokenization.json').read_text('utf-8'))['cases']


def test_wordpieces_are_the_releases(golden, bert):
  cases = golden_cases(golden)
  assert len(cases) == 24
  encoded = bert.encode([case['caption'] for case in cases])
  for case, (tokens, words) in zip(cases, encoded, strict=True):
    assert [bert.start, *tokens, bert.end] == case['ids'], case['caption']
    # Pieces of one basic token share its number, and the numbers count the basic tokens.
    assert sorted(set(words)) == list(range(len(case['basic'])))


def test_basic_tokens_of_our_vocabulary_are_the_releases(golden):
  cases = [case for case in golden_cases(golden) if case['basic']]
  vocabulary = tokenizers.build_vocabulary([case['caption'] for case in cases])
  for case, (tokens, _) in zip(cases, vocabulary.encode([case['caption'] for case in cases]), strict=True):
    assert vocabulary.pieces(tokens) == case['basic']


def test_vocabulary_counts_words_and_survives_its_file():
  captions = ['A dog, a dog!', 'the cat', 'The dog']
  vocabulary = tokenizers.build_vocabulary(captions, min_count=2)
  again = tokenizers.from_json(vocabulary.to_json(), source='test')
  assert vocabulary.vocab_size == 5 + 3  # dog 3, a 2, the 2; cat, comma and exclamation mark once
  assert again.encode(['the zebra dog']) == vocabulary.encode(['the zebra dog']) == [([7, 3, 5], [0, 1, 2])]
  assert (again.pad, again.start, again.end, again.unknown, again.mask) == (0, 1, 2, 3, 4)


def test_unknown_words_as_they_are_written(bert):
  vocabulary = tokenizers.build_vocabulary(['the dog on grass'])
  text = 'The ZÉBRA, on  the Σςİ grass: zébra'
  assert vocabulary.unknown_words(text) == ['ZÉBRA', 'Σςİ', 'zébra']
  assert vocabulary.unknown_words('dog THE dog') == vocabulary.unknown_words('') == []
  assert bert.unknown_words('a dog, 猫 on 猫!') == ['猫']


def test_vocabulary_is_that_of_whole_captions():
  # What is a space for Python, for BERT and for nobody; accents and capitals of more than one character.
  alphabet = np.array(list(' ' * 9 + "aAbB.,'-éß\u0301İΣς猫한ﬁ\t\x1c\x85\xa0\u2028\u3000\u200b\x00"))
  rng = np.random.default_rng(0)
  captions = [''.join(rng.choice(alphabet, rng.integers(1, 30))) for _ in range(211)]
  normalize, split = BertNormalizer(lowercase=True).normalize_str, BertPreTokenizer().pre_tokenize_str
  counts = collections.Counter(word for caption in captions for word, _ in split(normalize(caption)))
  for min_count in (1, 3):
    expected = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    built = tokenizers.build_vocabulary(captions, min_count=min_count)
    assert built.pieces(range(5, built.vocab_size)) == expected


def test_tokenize_in_chunks_is_tokenize_at_once(bert):
  captions = ['a man riding a wave', 'two dogs', 'a surfboard .', 'snow', 'playing in the snow']
  whole, chunked = tokenizers.tokenize(captions, bert), tokenizers.tokenize(captions, bert, chunk=2)
  for name in ('tokens', 'words', 'offsets'):
    np.testing.assert_array_equal(getattr(whole, name), getattr(chunked, name))
  assert whole.lengths.tolist() == [7, 4, 6, 3, 6]  # "surfboard" has two pieces
  assert bert.pieces(whole.caption(1)[0]) == ['two', 'dogs']


def test_cache_is_used_and_mended(tmp_path, bert, monkeypatch):
  captions = ['two dogs', 'a man']
  first = token_cache.cached_tokens(captions, bert, folder=tmp_path)
  (file,) = (tmp_path / 'tokens').iterdir()
  with monkeypatch.context() as patch:
    patch.setattr(token_cache, 'tokenize', None)  # would fail if it were called
    second = token_cache.cached_tokens(captions, bert, folder=tmp_path)
  np.testing.assert_array_equal(first.tokens, second.tokens)
  file.write_bytes(file.read_bytes()[:100])
  third = token_cache.cached_tokens(captions, bert, folder=tmp_path)
  np.testing.assert_array_equal(first.tokens, third.tokens)
  token_cache.cached_tokens([*captions, 'snow'], bert, folder=tmp_path)
  assert len(list((tmp_path / 'tokens').iterdir())) == 2


@pytest.mark.parametrize(
  'change',
  [
    dict(tokens=lambda a: a.astype(np.float32)),
    dict(tokens=lambda a: a + 10**6),
    dict(tokens=lambda a: -1 - a),
    dict(tokens=lambda a: a[:-1]),
    dict(tokens=lambda a: np.stack([a, a])),
    dict(words=lambda a: a[:-1]),
    dict(words=lambda a: a.astype(np.float64)),
    dict(words=lambda a: a - 1),
    dict(offsets=lambda a: a[[0, 2, 1]]),
    dict(offsets=lambda a: a[:-1]),
    dict(offsets=lambda a: np.zeros_like(a)),
    dict(offsets=lambda a: a + 1),
    dict(offsets=lambda a: a.astype(np.float64)),
    dict(offsets=lambda a: np.zeros(0, np.int64)),
  ],
)
def test_a_cache_whose_parts_do_not_fit_together_is_made_anew(tmp_path, bert, change):
  captions = ['two dogs', 'a man']
  right = token_cache.cached_tokens(captions, bert, folder=tmp_path)
  (file,) = (tmp_path / 'tokens').iterdir()
  arrays = dict(tokens=right.tokens, words=right.words, offsets=right.offsets)
  for _ in range(2):  # what is made anew is kept
    found = token_cache.cached_tokens(captions, bert, folder=tmp_path)
    for name, array in arrays.items():
      np.testing.assert_array_equal(getattr(found, name), array)
      assert getattr(found, name).dtype == array.dtype
    np.savez(file, **{name: change.get(name, lambda a: a)(array) for name, array in arrays.items()})


def test_captions_that_are_cut_elsewhere_are_other_ones(tmp_path, bert):
  first = token_cache.cached_tokens(['two\ndogs', 'a man'], bert, folder=tmp_path)
  second = token_cache.cached_tokens(['two', 'dogs\na man'], bert, folder=tmp_path)
  assert first.lengths.tolist() == [4, 4]
  assert second.lengths.tolist() == [3, 5]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, bert):
  (tmp_path / 'file').write_text('in the way')
  assert len(token_cache.cached_tokens(['two dogs'], bert, folder=tmp_path / 'file')) == 1


def test_without_a_home_there_is_no_cache(monkeypatch, bert):
  def unknown(number):
    raise KeyError(f'getpwuid(): uid not found: {number}')

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr('pwd.getpwuid', unknown)
  assert token_cache.cache_folder() is None
  assert len(token_cache.cached_tokens(['two dogs'], bert, folder=token_cache.cache_folder())) == 1


def test_missing_special_token_is_named():
  with pytest.raises(UserError, match=r'vocabulary has no token \[PAD\] or <pad>'):
    tokenizers.wordpiece({'[UNK]': 0, 'dog': 1})


def test_folder_without_vocabulary_is_named(tmp_path):
  with pytest.raises(UserError, match='neither vocab.txt nor tokenizer.json'):
    tokenizers.read_wordpiece(tmp_path)


def test_folder_of_a_cased_bert(tmp_path):
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'Dog', 'dog']
  (tmp_path / 'vocab.txt').write_text('\n'.join(pieces) + '\n', encoding='utf-8')
  assert tokenizers.read_wordpiece(tmp_path).encode(['Dog'])[0][0] == [6]
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
  assert tokenizers.read_wordpiece(tmp_path).encode(['Dog'])[0][0] == [5]
