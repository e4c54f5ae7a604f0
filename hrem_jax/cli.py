"""`python -m hrem_jax COMMAND`: what people with files need beside training."""

import argparse
import pathlib
from collections.abc import Sequence

from absl import logging

from hrem_jax.command_line import read_configuration
from hrem_jax.errors import UserError, fail


def prepare_demo(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.demo.build import build

  build(
    arguments.output,
    num_train=arguments.num_train,
    num_dev=arguments.num_dev,
    num_test=arguments.num_test,
    seed=arguments.seed,
  )


def report(arguments: argparse.Namespace) -> None:
  from hrem_jax.report.page import write_report

  print(write_report(arguments.workdir, arguments.output))


def convert(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.convert import convert

  convert(
    arguments.checkpoint,
    arguments.output,
    vocabulary=arguments.vocabulary,
    data_name=arguments.data_name,
    bert_heads=arguments.bert_heads,
  )


def export(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.export import export

  print(f'{arguments.output}: the checkpoint of step {export(arguments.workdir, arguments.output)}')


def ablate(arguments: argparse.Namespace) -> None:
  from hrem_jax.training.ablation import ablate, format_rows

  config = read_configuration(arguments.flags)
  variants = [name for name in arguments.variants.split(',') if name]
  print(format_rows(ablate(config, variants, num_seeds=arguments.seeds, output=arguments.output)))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m hrem_jax', description=__doc__)
  commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

  demo = commands.add_parser('prepare-demo', help='compose the demo data set from OpenMoji artwork')
  demo.add_argument('--output', type=pathlib.Path, default=pathlib.Path('data'), help='gets demo_precomp/')
  for split, count in (('train', 2000), ('dev', 250), ('test', 500)):
    demo.add_argument(f'--num-{split}', type=int, default=count, help=f'pictures of {split} ({count})')
  demo.add_argument('--seed', type=int, default=0)
  demo.set_defaults(command=prepare_demo)

  ablation = commands.add_parser(
    'ablate',
    help='train variants of a configuration with several seeds, and write the table',
    description='Options of the configuration (--config=FILE.py, --config.section.key=value) are as in training.',
    allow_abbrev=False,
  )
  ablation.add_argument('--variants', required=True, help='comma-separated: fusion,standalone,full,without_relevance')
  ablation.add_argument('--seeds', type=int, default=3, help='trainings per variant (3)')
  ablation.add_argument('--output', type=pathlib.Path, required=True, help='gets VARIANT/seed_N/ and the table')
  ablation.set_defaults(command=ablate, takes_flags=True)

  page = commands.add_parser('report', help='write a page with the results, examples and curves of a run')
  page.add_argument('workdir', type=pathlib.Path)
  page.add_argument('--output', type=pathlib.Path, help='WORKDIR/report.html')
  page.set_defaults(command=report)

  release = commands.add_parser('convert', help="turn the authors' PyTorch checkpoint into a workdir")
  release.add_argument('checkpoint', type=pathlib.Path, help='model_best.pth')
  release.add_argument('--output', type=pathlib.Path, required=True, help='the workdir, a new folder')
  release.add_argument('--vocabulary', type=pathlib.Path, help='Hugging Face folder, vocab.txt, tokenizer.json or SCAN')
  release.add_argument('--data-name', help='config.data.name, such as f30k')
  release.add_argument('--bert-heads', type=int, help='attention heads of the BERT (one for 64 channels)')
  release.set_defaults(command=convert)

  weights = commands.add_parser('export', help='write the best checkpoint of a run as safetensors')
  weights.add_argument('workdir', type=pathlib.Path)
  weights.add_argument('--output', type=pathlib.Path, required=True, help='gets three files, a new folder')
  weights.set_defaults(command=export)
  return parser


def run(argv: Sequence[str] | None = None) -> None:
  """Mistakes of the user end in one line and status 2."""
  parser = _parser()
  arguments, arguments.flags = parser.parse_known_args(argv)
  if arguments.flags and not getattr(arguments, 'takes_flags', False):
    parser.error(f'unrecognized arguments: {" ".join(arguments.flags)}')
  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  try:
    arguments.command(arguments)
  except UserError as error:
    fail(error)


if __name__ == '__main__':
  run()
