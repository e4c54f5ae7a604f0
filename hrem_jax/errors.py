"""The one exception for mistakes that the person at the keyboard can mend."""

import sys
from typing import NoReturn


class UserError(Exception):
  """Bad input: its message is one line that names the file, key or shape, what was found and what was expected.

  The command line prints the message without a traceback and exits with status 2.
  """


def one_line(message: object) -> str:
  """What a library says, its line breaks and indentation taken out."""
  return ' '.join(str(message).split())


def say(message: object) -> None:
  """A line on standard error that says whose it is."""
  print(f'hrem_jax: {message}', file=sys.stderr, flush=True)


def fail(error: UserError) -> NoReturn:
  """Where the command line ends with a mistake: its message on standard error, and status 2."""
  say(error)
  sys.exit(2)
