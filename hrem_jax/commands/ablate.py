"""`ablate`: a table of variants."""

import argparse

from hrem_jax.command_line import DATA_HELP, read_configuration
from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser(
    'ablate',
    help='train variants of a configuration with several seeds, and write the table',
    description='Options of the configuration (--config=FILE.py, --config.section.key=value) are as in training.',
    allow_abbrev=False,
  )
  parser.add_argument('--variants', required=True, help='comma-separated: fusion,standalone,full,without_relevance')
  parser.add_argument('--list', action=_ListVariants, nargs=0, help='print all variants and what each sets, and end')
  parser.add_argument('--seeds', type=int, default=3, help='trainings per variant (3)')
  parser.add_argument('--output', type=local_path, required=True, help='gets VARIANT/seed_N/ and the table')
  parser.add_argument('--data', help=DATA_HELP)
  parser.set_defaults(command=run, takes_flags=True)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.training.ablation import ablate, format_rows

  config = read_configuration(arguments.flags)
  if arguments.data is not None:
    config.data.directory = str(arguments.data)
  variants = [name for name in arguments.variants.split(',') if name]
  rows = ablate(config, variants, num_seeds=arguments.seeds, output=arguments.output)
  print(format_rows(rows, config.method))


class _ListVariants(argparse.Action):
  """Prints and ends, as --help does, whatever else is missing."""

  def __call__(self, parser, *_):
    from hrem_jax.methods.variants import listing

    print(listing())
    parser.exit()
