"""Vocabularies and word vectors that others wrote."""

import json

import numpy as np
import pytest

from hrem_jax.data import tokenizer as tokenizers
from hrem_jax.data.vocabularies import read_scan_vocabulary, read_word_vectors
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import default_config, validate

WORDS = ['<pad>', '<start>', '<end>', '<unk>', 'dog', 'a', "n't", 't-shirt', 'shirt', '.']


def scan(words=WORDS, **changes) -> dict:
  numbers = {word: number for number, word in enumerate(words)}
  return {'word2idx': numbers, 'idx2word': dict(enumerate(words)), 'idx': len(words)} | changes


def write(folder, content):
  path = folder / 'vocabulary.json'
  path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
  return path


def test_words_keep_their_numbers_and_the_mask_is_the_last(tmp_path):
  vocabulary = read_scan_vocabulary(write(tmp_path, scan()))
  assert (vocabulary.pad, vocabulary.start, vocabulary.end, vocabulary.unknown, vocabulary.mask) == (0, 1, 2, 3, 10)
  assert vocabulary.vocab_size == 11
  assert vocabulary.pieces(range(11)) == [*WORDS, '<mask>']
  assert vocabulary.encode(['A Dog.', 'a zebra']) == [([5, 4, 9], [0, 1, 2]), ([5, 3], [0, 1])]
  assert vocabulary.encode(['t-shirt'])[0][0] == [3, 3, 8]  # as the docstring says: three tokens
  again = tokenizers.from_json(vocabulary.to_json(), source='test')
  assert again.encode(['a dog']) == vocabulary.encode(['a dog'])


def test_a_mask_that_is_there_stays(tmp_path):
  vocabulary = read_scan_vocabulary(write(tmp_path, scan([*WORDS[:4], '<mask>', 'dog'])))
  assert (vocabulary.mask, vocabulary.vocab_size) == (4, 6)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{', 'vocabulary.json: not JSON'),
    ('[]', 'vocabulary.json: list, expected an object with word2idx'),
    ({'word2idx': {}, 'idx': 0}, "vocabulary.json: no key 'idx2word'"),
    (scan(word2idx={'<pad>': 0, 'dog': 2}), r"vocabulary.json: word2idx\['dog'\] is 2, expected 0 to 1"),
    (scan(word2idx={'<pad>': 0, 'dog': '1'}), r"vocabulary.json: word2idx\['dog'\] is '1', expected 0 to 1"),
    (scan(word2idx={'<pad>': 0, 'dog': 1, 'cat': 1}), "vocabulary.json: word2idx gives 1 to 'dog' and to 'cat'"),
    (scan(idx=11), 'vocabulary.json: idx is 11, but word2idx has 10 words'),
    (scan(idx2word={0: 'dog'}), 'vocabulary.json: idx2word is not the inverse of word2idx'),
    (scan(['<pad>', '<start>', '<unk>', 'dog']), 'vocabulary.json: word2idx has no word <end>'),
  ],
)
def test_files_that_are_no_vocabulary(tmp_path, content, message):
  with pytest.raises(UserError, match=message):
    read_scan_vocabulary(write(tmp_path, content))


def test_missing_files_are_named_with_their_key(tmp_path):
  with pytest.raises(UserError, match=r'nothing: no such file \(config.model.vocabulary\)'):
    read_scan_vocabulary(tmp_path / 'nothing')
  with pytest.raises(UserError, match=r'nothing: no such file \(config.model.word_vectors\)'):
    read_word_vectors(tmp_path / 'nothing', ['dog'], 3)


def vectors_of(folder, text: str, words, size: int = 3):
  path = folder / 'glove.txt'
  path.write_text(text, encoding='utf-8')
  return read_word_vectors(path, words, size)


@pytest.mark.parametrize('header', ['', '5 3\n'])
def test_vectors_of_the_words_that_are_there(tmp_path, header):
  text = header + 'a 1 2 3\n. . . 7 8 9\nthé 4e-1 -5 .6 \n2008 0 0 1\ndog 1.5 2.5 3.5\na 9 9 9\n'
  found, vectors = vectors_of(tmp_path, text, ['dog', '<pad>', 'a', 'zebra', 'thé', '.', '2008'])
  assert found.tolist() == [0, 2, 4, 6]
  assert (vectors.dtype, vectors.shape) == (np.float32, (4, 3))
  np.testing.assert_array_equal(vectors, np.array([[1.5, 2.5, 3.5], [1, 2, 3], [0.4, -5, 0.6], [0, 0, 1]], np.float32))


def test_no_word_of_the_file_is_known(tmp_path):
  found, vectors = vectors_of(tmp_path, 'a 1 2 3\n', ['dog'])
  assert (found.shape, vectors.shape) == ((0,), (0, 3))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('dog 1 2\n', 'line 1: 2 numbers after the word, expected config.model.bigru.word_size=3'),
    ('dog 1 2 3\na 1 2 3 4 5\n', 'line 2: 5 numbers after the word, expected config.model.bigru.word_size=3'),
    ('5 4\ndog 1 2 3 4\n', 'line 2: 4 numbers after the word'),
    ('zebra 1 2 3\n\n', 'line 2: 0 numbers after the word'),
    ('zebra 1 2 3\ndog 1 x 3\n', "line 2: 'x' is not a finite number"),
    ('dog 1 nan 3\n', "line 1: 'nan' is not a finite number"),
  ],
)
def test_lines_that_are_no_vectors(tmp_path, text, message):
  with pytest.raises(UserError, match=f'glove.txt: {message}'):
    vectors_of(tmp_path, text, ['dog', 'a'])


@pytest.mark.parametrize('key', ['vocabulary', 'word_vectors'])
def test_a_bert_has_no_use_for_them(key):
  config = default_config()
  config.model[key] = 'file'
  with pytest.raises(UserError, match=f"config.model.{key} is for config.model.text='bigru', which is 'bert'"):
    validate(config)
  config.model.text = 'bigru'
  validate(config)
