"""`export`: weights for other programs."""

import argparse

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('export', help='write the best checkpoint of a run as safetensors')
  parser.add_argument('workdir', type=local_path)
  parser.add_argument('--output', type=local_path, required=True, help='gets three files, a new folder')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.export import export

  print(f'{arguments.output}: the checkpoint of step {export(arguments.workdir, arguments.output)}')
