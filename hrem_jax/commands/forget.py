"""`forget`: pictures out of an index."""

import argparse

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('forget', help='delete pictures from an index')
  parser.add_argument('--index', type=local_path, required=True)
  parser.add_argument('ids', nargs='+', metavar='ID', help='of pictures that are in it')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.search.writer import open_writer

  with open_writer(arguments.index) as writer:
    writer.delete(arguments.ids)
  print(f'{arguments.index}: {len(writer.snapshot):,} pictures ({len(set(arguments.ids)):,} deleted)')
