"""`convert`: from the release of the authors."""

import argparse

from hrem_jax.command_line import DATA_HELP
from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('convert', help="turn the authors' PyTorch checkpoint into a workdir")
  parser.add_argument('checkpoint', type=local_path, help='model_best.pth')
  parser.add_argument('--output', type=local_path, required=True, help='the workdir, a new folder')
  parser.add_argument('--vocabulary', type=local_path, help='Hugging Face folder, vocab.txt, tokenizer.json or SCAN')
  parser.add_argument('--data', type=local_path, help=DATA_HELP)
  parser.add_argument('--data-name', help='config.data.name, such as f30k')
  parser.add_argument('--bert-heads', type=int, help='attention heads of the BERT (one for 64 channels)')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.convert import convert

  convert(
    arguments.checkpoint,
    arguments.output,
    vocabulary=arguments.vocabulary,
    data=arguments.data,
    data_name=arguments.data_name,
    bert_heads=arguments.bert_heads,
  )
