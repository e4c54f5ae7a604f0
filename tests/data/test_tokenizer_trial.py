"""Tokenizers of others are tried in a process of their own: what would end, fill or stop ours is a refusal."""

import io
import json
import struct

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers
from tower_folders import WIDTH, copy_of

from hrem_jax.data import tokenizer_trial
from hrem_jax.data.tokenizer import from_json, wordpiece
from hrem_jax.data.tokenizer_trial import panics_are_mistakes, read_tokenizer
from hrem_jax.errors import UserError
from hrem_jax.ports.tower_tokenizer import read_tower_tokenizer


def number(value: int) -> bytes:
  return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def message(field: int, content: bytes) -> bytes:
  return bytes([field << 3 | 2]) + number(len(content)) + content


def piece(text: str, score: float, kind: int = 1) -> bytes:
  usual = b'' if kind == 1 else bytes([3 << 3, kind])
  return message(1, message(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack('<f', score) + usual)


PIECES = [('<pad>', 0, 3), ('</s>', 0, 3), ('<unk>', 0, 2), ('▁dog', -1, 1), ('s', -2, 1), ('▁', -3, 1), ('▁do', -4, 1)]
MODEL = b''.join(piece(*each) for each in PIECES)


def read(content: bytes) -> tokenizers.Tokenizer:
  return read_tokenizer(content, source='spiece.model', kind='sentencepiece')


def test_pieces_scores_and_the_unknown():
  # A trainer's settings: fields of every kind before the one that counts, which is more than 127.
  made = read(MODEL + message(2, bytes([8 << 3 | 1]) + bytes(8) + bytes([40, 255, 1]) + bytes([3 << 3, 1])))
  assert made.encode('dogs dog').tokens == ['▁dog', 's', '▁dog']
  assert made.encode('dog éé').ids == [3, 5, 2]
  assert made.get_vocab_size() == 7


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (MODEL[:-3], 'DecodeError'),
    (MODEL + b'\x0f', 'DecodeError'),
    (MODEL + b'\x80' * 10**6, 'DecodeError'),  # a number that does not end
    (MODEL + message(2, bytes([3 << 3, 2])), 'its type is 2, expected that of a unigram model'),
    (MODEL + piece('x' * 5000, -1), 'one of more than 1,000 characters'),
    (MODEL + message(3, message(2, b'\xff' * 1000)), r'ends the process that reads it \(SIGABRT\)|Exception'),
    (MODEL + message(3, bytes([3 << 3, 0])), "SentencePiece itself cuts 'a dog runs on grass' otherwise"),
    (piece('a', 0), 'no piece stands for what is unknown'),
    (b'', 'no piece stands for what is unknown'),
  ],
)
def test_what_is_no_such_model_is_named(content, reason):
  with pytest.raises(UserError, match=f'spiece.model: not a unigram model of SentencePiece: .*({reason})'):
    read(content)


def test_a_first_siglip_is_read_from_it(tmp_path):
  folder = copy_of('siglip', tmp_path)
  (folder / 'spiece.model').write_bytes(MODEL)
  tokens, mask = read_tower_tokenizer(folder, 'siglip', WIDTH)(['Dogs, dog!'])
  assert tokens[0, :5].tolist() == [3, 4, 3, 1, 1]
  assert mask.sum() == 4


def test_sentencepiece_does_the_same():
  corpus = ['a dog runs on grass', 'the man and a red dog', 'two cats sit', 'café au lait', 'a red cat'] * 9
  model = io.BytesIO()
  train = sentencepiece.SentencePieceTrainer.train
  train(sentence_iterator=iter(corpus), model_writer=model, vocab_size=40, hard_vocab_limit=False, minloglevel=2)
  theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  ours = read(model.getvalue())
  assert ours.normalizer is not None
  for text in [
    'a dog',
    'the cats on grass',
    'cafe\u0301 ﬁne',
    '\uff41 \uff44og',
    'xyzzy runs',
    'red red dog',
    '一 dog',
  ]:
    assert ours.encode(text).ids == theirs.encode(text)


VOCABULARY = {word: row for row, word in enumerate(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'dog'])}


def changed(change) -> str:
  content = json.loads(wordpiece(VOCABULARY).to_json())
  change(content)
  return json.dumps(content)


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (lambda c: c['model'].update(unk_token='[NONE]'), 'Missing .* token from the vocabulary'),
    (lambda c: c['model'].update(type='Unheard'), ''),
    (lambda c: c['model']['vocab'].update({'x' * 2000: 7}), 'one of more than 1,000 characters'),
    (
      lambda c: c.update(normalizer={'type': 'Precompiled', 'precompiled_charsmap': '/////////////////////w=='}),
      r'Exception|ends the process',
    ),
    (lambda c: c.update(normalizer={'type': 'Replace', 'pattern': {'Regex': '('}, 'content': ''}), 'Exception'),
  ],
)
def test_a_tokenizer_that_cannot_cut_sentences_is_refused(change, reason):
  with pytest.raises(UserError, match=f'x.json: not a tokenizer file: .*({reason})'):
    from_json(changed(change), source='x.json')


def test_time_and_memory_are_bounded(monkeypatch, tmp_path):
  """A child that takes more than it may is ended; a second question asks nobody."""
  child = tmp_path / 'child.py'
  child.write_text('import resource, sys\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass\n')
  monkeypatch.setattr(tokenizer_trial, '_CHILD', child)
  with pytest.raises(UserError, match='slow.json: .* takes more than 60 seconds|ends the process'):
    read_tokenizer(b'{"slow": 1}', source='slow.json')
  child.unlink()
  with pytest.raises(UserError, match='again.json: .* takes more than 60 seconds|ends the process'):
    read_tokenizer(b'{"slow": 1}', source='again.json')


class PanicException(BaseException):
  """As the library's own, which cannot be imported, is called."""


def test_a_panic_later_on_is_a_mistake_too():
  message = r'x.json: the library `tokenizers` fails with this tokenizer: no place'
  with pytest.raises(UserError, match=message), panics_are_mistakes('x.json'):
    raise PanicException('no place')
  with pytest.raises(KeyboardInterrupt), panics_are_mistakes('x.json'):
    raise KeyboardInterrupt


def test_an_honest_tokenizer_is_the_one_of_its_file():
  text = wordpiece(VOCABULARY).to_json()
  assert from_json(text, source='x.json').to_json() == text
  bpe = tokenizers.Tokenizer(models.BPE({'a': 0, 'b': 1, 'ab': 2}, [('a', 'b')]))
  bpe.normalizer, bpe.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
  assert read_tokenizer(bpe.to_str().encode(), source='y').encode('AB ba').ids == [2, 1, 0]
