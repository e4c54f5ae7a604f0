"""`python -m hrem_jax COMMAND`: what people with files need beside training."""

import argparse
import pathlib
from collections.abc import Sequence

from absl import logging

from hrem_jax.errors import UserError, fail


def prepare_demo(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.demo.build import build

  build(
    arguments.output,
    num_train=arguments.num_train,
    num_dev=arguments.num_dev,
    num_test=arguments.num_test,
    seed=arguments.seed,
  )


def report(arguments: argparse.Namespace) -> None:
  from hrem_jax.report.page import write_report

  print(write_report(arguments.workdir, arguments.output))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m hrem_jax', description=__doc__)
  commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

  demo = commands.add_parser('prepare-demo', help='compose the demo data set from OpenMoji artwork')
  demo.add_argument('--output', type=pathlib.Path, default=pathlib.Path('data'), help='gets demo_precomp/')
  for split, count in (('train', 2000), ('dev', 250), ('test', 500)):
    demo.add_argument(f'--num-{split}', type=int, default=count, help=f'pictures of {split} ({count})')
  demo.add_argument('--seed', type=int, default=0)
  demo.set_defaults(command=prepare_demo)

  page = commands.add_parser('report', help='write a page with the results, examples and curves of a run')
  page.add_argument('workdir', type=pathlib.Path)
  page.add_argument('--output', type=pathlib.Path, help='WORKDIR/report.html')
  page.set_defaults(command=report)
  return parser


def run(argv: Sequence[str] | None = None) -> None:
  """Mistakes of the user end in one line and status 2."""
  arguments = _parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  try:
    arguments.command(arguments)
  except UserError as error:
    fail(error)


if __name__ == '__main__':
  run()
