"""`export`: weights for other programs."""

import argparse
import pathlib


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('export', help='write the best checkpoint of a run as safetensors')
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--output', type=pathlib.Path, required=True, help='gets three files, a new folder')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.export import export

  print(f'{arguments.output}: the checkpoint of step {export(arguments.workdir, arguments.output)}')
