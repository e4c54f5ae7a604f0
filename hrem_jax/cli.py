"""`python -m hrem_jax COMMAND`: what people with files need beside training."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from absl import logging

from hrem_jax.commands import (
  ablate,
  caption_ids,
  check,
  convert,
  convert_data,
  encode,
  export,
  extract,
  forget,
  methods,
  prepare_demo,
  report,
  search,
  serve,
  transfer,
)
from hrem_jax.errors import UserError, fail, refusals_are_mistakes

COMMANDS = (
  prepare_demo,
  extract,
  check,
  convert_data,
  methods,
  ablate,
  report,
  encode,
  search,
  serve,
  forget,
  convert,
  export,
  transfer,
  caption_ids,
)


class _Parser(argparse.ArgumentParser):
  """Its commands have parsers of this class, too."""

  def error(self, message: str) -> NoReturn:
    """A line instead of the usage, which --help prints."""
    fail(UserError(f'{message} (`{self.prog} --help` explains)'))


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(prog='python -m hrem_jax', description=__doc__)
  commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
  for module in COMMANDS:
    module.add(commands)
  return parser


def run(argv: Sequence[str] | None = None) -> None:
  """Mistakes of the user end in one line and status 2."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  parser = _parser()
  try:
    with refusals_are_mistakes():  # --help and --list print, too
      arguments, arguments.flags = parser.parse_known_args(argv)
      if arguments.flags and not getattr(arguments, 'takes_flags', False):
        parser.error(f'unrecognized arguments: {" ".join(arguments.flags)}')
      arguments.command(arguments)
  except UserError as error:
    fail(error)


if __name__ == '__main__':
  run()
