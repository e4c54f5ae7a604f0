"""`caption-ids`: which annotation of COCO each caption of a split is."""

import argparse

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser(
    'caption-ids', help="find COCO's numbers of the captions of a split, which CxC and ECCV Caption are written in"
  )
  parser.add_argument('data', type=local_path, help='coco_precomp; gets SPLIT_caption_ids.txt')
  parser.add_argument(
    '--annotations', type=local_path, required=True, help="captions_val2014.json, or Karpathy's dataset_coco.json"
  )
  parser.add_argument('--split', default='testall', help='testall')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.caption_ids import write_caption_ids

  print(write_caption_ids(arguments.data, arguments.split, arguments.annotations))
