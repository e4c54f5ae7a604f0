"""`transfer`: a run on a data set that it was not trained on."""

import argparse

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser(
    'transfer', help='evaluate a run on another data set than it was trained on (zero-shot transfer)'
  )
  parser.add_argument('workdir', type=local_path, help='of the run, which keeps its own results.json')
  parser.add_argument('--data', required=True, type=local_path, help='folder with NAME_precomp in it')
  parser.add_argument('--name', required=True, help='of the data set, such as coco')
  parser.add_argument('--split', default='test', help='test; testall for the whole of MS-COCO')
  parser.add_argument('--protocol', default='all', choices=['all', 'coco', 'eccv'], help='docs/protocols.md')
  parser.add_argument('--ties', choices=['expected', 'pessimistic', 'optimistic'], help='as in the training')
  parser.add_argument('--caption-ids', default='', help="eccv: file of COCO's caption ids, or 'karpathy'")
  parser.add_argument('--class-labels', default='', help='file of object classes: plausible matches, too')
  parser.add_argument('--output', type=local_path, help='WORKDIR/transfer_NAME_SPLIT.json')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.transfer import transfer

  given = vars(arguments)
  settings = {key: given[key] for key in ('protocol', 'ties', 'caption_ids', 'class_labels') if given[key]}
  transfer(
    arguments.workdir,
    data=arguments.data,
    name=arguments.name,
    split=arguments.split,
    settings=settings,
    output=arguments.output,
  )
