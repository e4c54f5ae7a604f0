"""`extract`: pictures and captions through a frozen encoder to a data set."""

import argparse
import dataclasses

from hrem_jax.errors import UserError
from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('extract', help='make a data set of your own pictures and captions')
  parser.add_argument(
    '--images',
    type=local_path,
    required=True,
    help='a folder (a.jpg with a.txt, one caption a line), FILE.csv, .tsv, .jsonl, dataset_*.json of Karpathy, '
    'or a TFDS data set such as coco_captions/2014/1.1.0 (docs/own_pictures.md)',
  )
  parser.add_argument('--root', type=local_path, help='where paths in a file start (the folder of the file)')
  parser.add_argument(
    '--encoder',
    default='efficientnet-lite2',
    help='efficientnet-lite2 (default), efficientnet-lite0 (both: extra `pictures`), patches (pixels, no weights), or '
    'the folder of a ViT, CLIP, SigLIP or DINOv2 (docs/encoders.md)',
  )
  parser.add_argument(
    '--pixels',
    action='store_true',
    help='keep the pixels of the patches, for training the vision tower of the folder with the rest '
    '(configs/own_pictures_end_to_end.py)',
  )
  parser.add_argument('--output', type=local_path, required=True, help='gets NAME_precomp/')
  parser.add_argument('--name', default='own', help='of the data set: config.data.name (own)')
  parser.add_argument('--regions', type=int, help='per picture (the grid, pooled 2 x 2 if larger than 8 x 8)')
  parser.add_argument('--dev', type=float, default=0.1, help='share of the pictures with captions (0.1)')
  parser.add_argument('--test', type=float, default=0.1, help='share of the pictures with captions (0.1)')
  parser.add_argument('--seed', type=int, default=0, help='another seed, other splits')
  parser.add_argument('--pictures-size', type=int, default=512, help='pixels of the pictures kept; 0 for none (512)')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.extraction.extract import Options, extract, format_table
  from hrem_jax.extraction.picture_encoders import open_encoder
  from hrem_jax.extraction.sources import read_source
  from hrem_jax.extraction.splits import SplitRule

  if arguments.pixels and arguments.regions:
    raise UserError('--regions: with --pixels every patch of the tower is a region')
  rule = SplitRule(dev=arguments.dev, test=arguments.test, seed=arguments.seed)
  options = Options(regions=arguments.regions, pictures_size=arguments.pictures_size, rule=rule)
  source = read_source(arguments.images, arguments.root)  # cheaper than an encoder: its mistakes are told first
  encoder = open_encoder(arguments.encoder)
  if arguments.pixels:
    from hrem_jax.extraction.pixels import pixel_encoder

    encoder = pixel_encoder(encoder)
    options = dataclasses.replace(options, regions=encoder.grid[0] * encoder.grid[1])
  print(format_table(extract(source, encoder, arguments.output, name=arguments.name, options=options)))
