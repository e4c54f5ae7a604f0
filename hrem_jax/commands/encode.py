"""`encode`: the pictures of a data set into an index."""

import argparse

from hrem_jax.paths import index_address, local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('encode', help='add the pictures of a data set to an index to search in')
  parser.add_argument('workdir', type=local_path, nargs='?', help='of the run whose encoders are used')
  parser.add_argument(
    '--data', type=local_path, required=True, help='NAME_precomp, as `extract` wrote it, or a folder with it'
  )
  parser.add_argument(
    '--index',
    type=index_address,
    required=True,
    help='a file, or NAME.lance, s3://BUCKET/NAME.lance; made if missing',
  )
  parser.add_argument(
    '--encoder',
    type=local_path,
    help='folder of a CLIP or SigLIP that `extract` was given: search without training; with WORKDIR, of whatever '
    '`extract` was given, for pictures as queries',
  )
  parser.add_argument('--split', help='such as gallery,test (all)')
  parser.add_argument('--dtype', choices=['float32', 'float16'], help='of the embeddings of a new index (float32)')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.errors import UserError
  from hrem_jax.search.encode import encode
  from hrem_jax.search.run_encoder import RunEncoder
  from hrem_jax.search.tower_encoder import TowerEncoder

  if arguments.workdir is None and arguments.encoder is None:
    raise UserError('encode: with what? Expected the WORKDIR of a run, or --encoder FOLDER of a CLIP or SigLIP')
  with_run = arguments.workdir is not None
  encoder = RunEncoder(arguments.workdir) if with_run else TowerEncoder(arguments.encoder)
  done = encode(
    encoder,
    arguments.data,
    arguments.index,
    splits=None if arguments.split is None else [name for name in arguments.split.split(',') if name],
    dtype=arguments.dtype,
    picture_encoder=arguments.encoder if with_run else None,
  )
  print(
    f'{arguments.index}: {done.total:,} pictures ({done.new:,} new, {done.replaced:,} replaced, {done.unchanged:,} '
    'were there)'
  )
