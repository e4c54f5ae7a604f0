"""`forget`: pictures out of an index."""

import argparse

from hrem_jax.paths import index_address


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('forget', help='delete pictures from an index, so that nothing of them is left in it')
  parser.add_argument('--index', type=index_address, required=True)
  parser.add_argument('ids', nargs='+', metavar='ID', help='of pictures that are in it; those that are not are named')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.errors import say
  from hrem_jax.search.index import open_index

  with open_index(arguments.index) as index:
    missing = index.delete(arguments.ids)
    pictures = index.state().pictures
  if missing:
    say(f'not in {arguments.index} (any more): {", ".join(map(repr, missing))}')
  print(f'{arguments.index}: {pictures:,} pictures ({len(set(arguments.ids)) - len(missing):,} deleted)')
