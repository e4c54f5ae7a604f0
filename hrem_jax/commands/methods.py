"""`methods`: the systems that can be trained, and what was published of them."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser(
    'methods',
    help='list the methods: paper, kind, inputs, published figures, configuration',
    description='Each is trained by a configuration of its own, for example --config=configs/f30k_gpo.py:bert.',
    allow_abbrev=False,
  )
  parser.add_argument('--json', action='store_true', help='one JSON object')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  import json

  from hrem_jax.methods.registry import described, listing

  print(json.dumps(described(), indent=2) if arguments.json else listing())
