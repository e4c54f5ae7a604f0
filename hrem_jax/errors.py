"""The one exception for mistakes that the person at the keyboard can mend."""

import contextlib
import os
import reprlib
import sys
from collections.abc import Iterator
from typing import NoReturn

LONGEST = 700  # characters of a message: a path, and what is wrong there
_LEFT_OUT = ' ... '


class UserError(Exception):
  """Bad input: its message is one line that names the file, key or shape, what was found and what was expected.

  The command line prints the message without a traceback and exits with status 2. Whatever a file holds, the message
  does not become long: beyond `LONGEST` characters its middle is left out.
  """

  def __init__(self, message: object):
    super().__init__(shortened(str(message), LONGEST))


def shortened(text: str, length: int) -> str:
  """A text of at most so many characters, the middle of a longer one left out."""
  kept = max(length - len(_LEFT_OUT), 2)
  return text if len(text) <= length else f'{text[: kept - kept // 3]}{_LEFT_OUT}{text[-(kept // 3) :]}'


def shown(value: object, length: int = 80) -> str:
  """A value in a message: its `repr` on one line and short, also of what is hostile, endless or very large."""
  short = reprlib.Repr()
  short.maxstring = short.maxother = short.maxlong = length
  short.maxlevel = 3
  try:
    return shortened(one_line(short.repr(value)), length)
  except Exception:  # of a whole number with too many digits, of an object whose `repr` is broken
    return f'a value of type {type(value).__name__}'


def one_line(message: object) -> str:
  """What a library says, its line breaks and indentation taken out."""
  return ' '.join(str(message).split())


def say(message: object) -> None:
  """A line on standard error that says whose it is."""
  print(f'hrem_jax: {message}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def refusals_are_mistakes() -> Iterator[None]:
  """What the operating system refuses inside (a full disk, a file in the way, no right) is the user's to mend, too.

  Raises:
    UserError: In place of an OSError; its message names the file.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()  # at the end of the interpreter nobody could say any more what failed
  except (ConnectionError, TimeoutError):
    raise  # no files; a reader of our output that went away (`| head`) is one of them
  except OSError as error:
    if error.errno is None:
      raise  # of a library, not of the system
    where = error.filename if isinstance(error.filename, str | os.PathLike) else 'a file or standard output'
    raise UserError(
      f'{os.fspath(where)}: {error.strerror}; expected are files and folders that this user may read and write, and '
      'room for them'
    ) from error


def fail(error: UserError) -> NoReturn:
  """Where the command line ends with a mistake: its message on standard error, and status 2."""
  _settle_output()
  say(one_line(error))
  sys.exit(2)


def _settle_output() -> None:
  """Standard output that cannot be written would fail once more at the end of the interpreter, with another status."""
  try:
    sys.stdout.flush()
  except OSError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
