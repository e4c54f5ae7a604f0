"""`prepare-demo`: the embedded data set."""

import argparse
import pathlib

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('prepare-demo', help='compose the demo data set from OpenMoji artwork')
  parser.add_argument('--output', type=local_path, default=pathlib.Path('data'), help='gets demo_precomp/')
  for split, count in (('train', 2000), ('dev', 250), ('test', 500)):
    parser.add_argument(f'--num-{split}', type=int, default=count, help=f'pictures of {split} ({count})')
  parser.add_argument('--seed', type=int, default=0)
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.demo.build import build

  build(
    arguments.output,
    num_train=arguments.num_train,
    num_dev=arguments.num_dev,
    num_test=arguments.num_test,
    seed=arguments.seed,
  )
