"""Files of tokenizers that others made, each tried in a process of its own before it is used in this one."""

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import tokenizers

from hrem_jax.errors import UserError, one_line, shortened

CPU_SECONDS = 60  # the largest published files take two
MEMORY = 2**33  # bytes of addresses, of which the library reserves many that it does not use
_tried: dict[tuple[str, bytes], tuple[str, str]] = {}  # what `_try` said of contents by kind and SHA-256
_CHILD = pathlib.Path(__file__).with_name('tokenizer_child.py')


def read_tokenizer(content: bytes, *, source: str, kind: str = 'json') -> tokenizers.Tokenizer:
  """The tokenizer in a file, which has cut a few sentences elsewhere.

  Args:
    content: Of the file.
    source: Its name.
    kind: 'json' for `tokenizer.json`, 'sentencepiece' for `spiece.model`.

  Raises:
    UserError: The file is damaged, or a library ends its process, takes too much memory or time, or fails with it.
  """
  what = {'json': 'tokenizer file', 'sentencepiece': 'unigram model of SentencePiece'}[kind]
  key = kind, hashlib.sha256(content).digest()
  if key not in _tried:
    _tried[key] = _try(content, kind)
  made, problem = _tried[key]
  if problem:
    raise UserError(f'{source}: not a {what}: {problem}')
  with panics_are_mistakes(source):
    return tokenizers.Tokenizer.from_str(made or content.decode())


def _try(content: bytes, kind: str) -> tuple[str, str]:
  """The tokenizer as JSON, if the content is none, and what is wrong with it, else ''."""
  command = [sys.executable, '-P', str(_CHILD), kind, str(CPU_SECONDS), str(MEMORY)]
  environment = os.environ | {'TOKENIZERS_PARALLELISM': 'false'}  # threads are bytes of addresses
  result = subprocess.run(command, input=content, capture_output=True, env=environment, check=False)
  if not result.returncode:
    return '' if kind == 'json' else result.stdout.decode(), ''
  if result.returncode == -signal.SIGXCPU:
    return '', f'it takes more than {CPU_SECONDS} seconds to read it and to try a few sentences'
  if result.returncode < 0:
    return '', f'it ends the process that reads it ({signal.Signals(-result.returncode).name})'
  reasons = result.stderr.decode(errors='replace').strip().splitlines() or [f'status {result.returncode}']
  return '', shortened(one_line(reasons[-1]), 300)


@contextlib.contextmanager
def panics_are_mistakes(source: str) -> Iterator[None]:
  """A panic of the library `tokenizers`, which is no `Exception`, becomes a UserError that names the file."""
  try:
    yield
  except BaseException as error:
    if type(error).__name__ != 'PanicException':
      raise
    raise UserError(f'{source}: the library `tokenizers` fails with this tokenizer: {one_line(error)[:200]}') from error
