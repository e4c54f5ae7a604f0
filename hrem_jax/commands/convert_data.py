"""`convert-data`: a data set as TFDS."""

import argparse

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('convert-data', help='write a data set as a TFDS data set in ArrayRecord')
  parser.add_argument('data', type=local_path, help='NAME_precomp, or a folder with such folders in it')
  parser.add_argument('--output', type=local_path, required=True, help='gets region_captions/NAME/VERSION/')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.tfds import convert

  print(*convert(arguments.data, arguments.output), sep='\n')
