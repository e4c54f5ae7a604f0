"""Builds a tokenizer from somebody's file and tries it, in a process of its own that `tokenizer_trial` starts.

What libraries do with a hostile file is to end their process, to take all memory, or not to return. Nothing of ours is
imported here: it starts in a tenth of a second. The tokenizer, as JSON, goes to standard output.
"""

import contextlib
import resource
import sys

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

PLAIN = ['a dog runs on grass', 'two people at a table', 'the man and a red cat']
ODD = ['', ' ', 'Ein Mädchen, 3 Hunde (und 1 Katze)!', '一只狗 🐕 e\u0301 ﬁ \u200b\t~#@', 'x' * 300, 'dog ' * 300]
LONGEST_PIECE, MOST_PIECES = 1000, 2**21  # characters; the largest published vocabularies have 256,000


def main(kind: str, cpu_seconds: int, memory: int) -> None:
  for limit, value in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
      resource.setrlimit(limit, (value, value))
  content = sys.stdin.buffer.read()
  try:
    made = from_sentencepiece(content) if kind == 'sentencepiece' else tokenizers.Tokenizer.from_str(content.decode())
    try_out(made)
  except BaseException as error:  # a panic of Rust is no Exception
    print(f'{type(error).__name__}: {error}'[:500], file=sys.stderr)
    sys.exit(1)
  sys.stdout.buffer.write(made.to_str().encode())


def try_out(made: tokenizers.Tokenizer) -> None:
  """Raises where it cannot cut sentences into pieces of its own vocabulary and put them together again."""
  pieces = made.get_vocab(with_added_tokens=True)
  if len(pieces) > MOST_PIECES or any(len(piece) > LONGEST_PIECE for piece in pieces):
    raise ValueError(f'more than {MOST_PIECES:,} pieces, or one of more than {LONGEST_PIECE:,} characters')
  made.no_padding()
  made.no_truncation()
  numbers = set(pieces.values())
  for encoding in made.encode_batch([*PLAIN, *ODD], add_special_tokens=False):
    if not numbers.issuperset(encoding.ids):
      raise ValueError('a sentence becomes tokens that are not in the vocabulary')
    made.decode(encoding.ids, skip_special_tokens=False)


def from_sentencepiece(content: bytes) -> tokenizers.Tokenizer:
  """A unigram model of SentencePiece: the normalisation of its characters, words, pieces."""
  from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(content)
  if model.trainer_spec.model_type != model.trainer_spec.UNIGRAM:
    raise ValueError(f'its type is {model.trainer_spec.model_type}, expected that of a unigram model')
  kinds = [piece.type for piece in model.pieces]
  if sentencepiece_model_pb2.ModelProto.SentencePiece.UNKNOWN not in kinds:
    raise ValueError('no piece stands for what is unknown')
  if len(kinds) > MOST_PIECES or any(len(piece.piece) > LONGEST_PIECE for piece in model.pieces):
    raise ValueError(f'more than {MOST_PIECES:,} pieces, or one of more than {LONGEST_PIECE:,} characters')
  unknown = kinds.index(sentencepiece_model_pb2.ModelProto.SentencePiece.UNKNOWN)
  has_bytes = sentencepiece_model_pb2.ModelProto.SentencePiece.BYTE in kinds
  pieces = [(piece.piece, piece.score) for piece in model.pieces]
  made = tokenizers.Tokenizer(models.Unigram(pieces, unknown, byte_fallback=has_bytes))
  if model.normalizer_spec.precompiled_charsmap:
    made.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  theirs = SentencePieceProcessor(model_proto=content)
  for sentence in PLAIN:
    if made.encode(sentence).ids != theirs.encode(sentence):
      raise ValueError(f'its settings are not known here: SentencePiece itself cuts {sentence!r} otherwise')
  return made


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
