"""`spiece.model` by hand, and against SentencePiece itself where that is installed."""

import io
import struct

import pytest
from tower_folders import WIDTH, copy_of

from hrem_jax.errors import UserError
from hrem_jax.ports.sentencepiece_model import read_sentencepiece
from hrem_jax.ports.tower_tokenizer import read_tower_tokenizer


def message(number: int, content: bytes) -> bytes:
  assert len(content) < 128
  return bytes([number << 3 | 2, len(content)]) + content


def piece(text: str, score: float, kind: int = 1) -> bytes:
  usual = b'' if kind == 1 else bytes([3 << 3, kind])
  return message(1, message(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack('<f', score) + usual)


PIECES = [('<pad>', 0, 3), ('</s>', 0, 3), ('<unk>', 0, 2), ('▁dog', -1, 1), ('s', -2, 1), ('▁', -3, 1), ('▁do', -4, 1)]
MODEL = b''.join(piece(*each) for each in PIECES)


def test_pieces_scores_and_the_unknown(tmp_path):
  path = tmp_path / 'spiece.model'
  # A trainer's settings: fields of every kind before the one that counts, which is more than 127.
  path.write_bytes(MODEL + message(2, bytes([8 << 3 | 1]) + bytes(8) + bytes([40, 255, 1]) + bytes([3 << 3, 1])))
  tokenizer = read_sentencepiece(path)
  assert tokenizer.encode('dogs dog').tokens == ['▁dog', 's', '▁dog']
  assert tokenizer.encode('dog éé').ids == [3, 5, 2]
  assert tokenizer.get_vocab_size() == 7


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (MODEL[:-3], 'it is cut off'),
    (MODEL + b'\x0f', 'a field of kind 7'),
    (MODEL + message(2, bytes([3 << 3, 2])), 'its type is 2'),
    (piece('a', 0), 'no piece stands for what is unknown'),
    (b'\xff', 'index out of range'),
    (b'', 'no piece stands for what is unknown'),
  ],
)
def test_what_is_no_such_model_is_named(content, reason, tmp_path):
  path = tmp_path / 'spiece.model'
  path.write_bytes(content)
  with pytest.raises(UserError, match=f'spiece.model: not a unigram model of SentencePiece: .*{reason}'):
    read_sentencepiece(path)


def test_a_first_siglip_is_read_from_it(tmp_path):
  folder = copy_of('siglip', tmp_path)
  (folder / 'spiece.model').write_bytes(MODEL)
  tokens, mask = read_tower_tokenizer(folder, 'siglip', WIDTH)(['Dogs, dog!'])
  assert tokens[0, :5].tolist() == [3, 4, 3, 1, 1]
  assert mask.sum() == 4


def test_sentencepiece_does_the_same(tmp_path):
  sentencepiece = pytest.importorskip('sentencepiece')
  corpus = ['a dog runs on grass', 'the man and a red dog', 'two cats sit', 'café au lait', 'a red cat'] * 9
  model, path = io.BytesIO(), tmp_path / 'spiece.model'
  train = sentencepiece.SentencePieceTrainer.train
  train(sentence_iterator=iter(corpus), model_writer=model, vocab_size=40, hard_vocab_limit=False, minloglevel=2)
  path.write_bytes(model.getvalue())
  theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  ours = read_sentencepiece(path)
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
