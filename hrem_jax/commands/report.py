"""`report`: a page about a run."""

import argparse
import pathlib

from hrem_jax.command_line import DATA_HELP


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('report', help='write a page with the results, examples and curves of a run')
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--output', type=pathlib.Path, help='WORKDIR/report.html')
  parser.add_argument('--data', help=DATA_HELP)
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.report.page import write_report

  print(write_report(arguments.workdir, arguments.output, data=arguments.data))
