"""`python -m hrem_jax COMMAND`: what people with files need beside training."""

import argparse
from collections.abc import Sequence

from absl import logging

from hrem_jax.commands import ablate, caption_ids, check, convert, convert_data, export, prepare_demo, report, transfer
from hrem_jax.errors import UserError, fail

COMMANDS = (prepare_demo, check, convert_data, ablate, report, convert, export, transfer, caption_ids)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m hrem_jax', description=__doc__)
  commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
  for module in COMMANDS:
    module.add(commands)
  return parser


def run(argv: Sequence[str] | None = None) -> None:
  """Mistakes of the user end in one line and status 2."""
  parser = _parser()
  arguments, arguments.flags = parser.parse_known_args(argv)
  if arguments.flags and not getattr(arguments, 'takes_flags', False):
    parser.error(f'unrecognized arguments: {" ".join(arguments.flags)}')
  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  try:
    arguments.command(arguments)
  except UserError as error:
    fail(error)


if __name__ == '__main__':
  run()
