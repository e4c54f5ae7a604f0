"""`report`: a page about a run."""

import argparse

from hrem_jax.command_line import DATA_HELP
from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('report', help='write a page with the results, examples and curves of a run')
  parser.add_argument('workdir', type=local_path)
  parser.add_argument('--output', type=local_path, help='WORKDIR/report.html')
  parser.add_argument('--data', help=DATA_HELP)
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.report.page import write_report

  print(write_report(arguments.workdir, arguments.output, data=arguments.data))
