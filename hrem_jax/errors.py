"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(Exception):
  """Bad input: its message is one line that names the file, key or shape, what was found and what was expected.

  The command line prints the message without a traceback and exits with status 2.
  """
