"""`encode`: the pictures of a data set into an index."""

import argparse
import pathlib


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('encode', help='add the pictures of a data set to an index to search in')
  parser.add_argument('workdir', type=pathlib.Path, help='of the run whose encoders are used')
  parser.add_argument(
    '--data', type=pathlib.Path, required=True, help='NAME_precomp, as `extract` wrote it, or a folder with it'
  )
  parser.add_argument('--index', type=pathlib.Path, required=True, help='folder of the index; made if missing')
  parser.add_argument('--split', help='such as gallery,test (all)')
  parser.add_argument('--dtype', choices=['float32', 'float16'], help='of the embeddings of a new index (float32)')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.search.encode import encode
  from hrem_jax.search.encoders import RunEncoder

  splits = [name for name in arguments.split.split(',') if name] if arguments.split is not None else None
  encoder = RunEncoder(arguments.workdir.expanduser())
  done = encode(encoder, arguments.data, arguments.index.expanduser(), splits=splits, dtype=arguments.dtype)
  print(
    f'{arguments.index}: {done.total:,} pictures ({done.new:,} new, {done.replaced:,} replaced, {done.unchanged:,} '
    'were there)'
  )
