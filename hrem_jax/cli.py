"""`python -m hrem_jax COMMAND`: what people with files need beside training."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from hrem_jax.command_line import DATA_HELP, read_configuration
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


def check(arguments: argparse.Namespace) -> None:
  """Ends with status 2 where there are problems."""
  from tqdm import tqdm

  from hrem_jax.configuration import default_config
  from hrem_jax.data.check import examine, format_counts
  from hrem_jax.data.sources import precomputed_folders

  num_problems, widest = 0, default_config().data.length_buckets[-1]
  for folder in precomputed_folders(arguments.data):
    num_bytes = sum(path.stat().st_size for path in folder.glob('*_ims.npy'))
    with tqdm(total=num_bytes, desc=folder.name, unit='B', unit_scale=True, leave=False) as bar:
      examination = examine(folder, widest=widest, scanned=bar.update)
    num_problems += len(examination.problems)
    found = [*(f'warning: {warning}' for warning in examination.warnings), *examination.problems]
    if examination.problems:
      found.append(f'{folder}: {len(examination.problems)} problem(s)')
    else:
      found += [f'{folder}: ready', format_counts(examination.splits)]
    print(*found, sep='\n')
  if num_problems:
    sys.exit(2)


def convert_data(arguments: argparse.Namespace) -> None:
  from hrem_jax.data.tfds import convert

  print(*convert(arguments.data, arguments.output), sep='\n')


def report(arguments: argparse.Namespace) -> None:
  from hrem_jax.report.page import write_report

  print(write_report(arguments.workdir, arguments.output, data=arguments.data))


def convert(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.convert import convert

  convert(
    arguments.checkpoint,
    arguments.output,
    vocabulary=arguments.vocabulary,
    data=arguments.data,
    data_name=arguments.data_name,
    bert_heads=arguments.bert_heads,
  )


def export(arguments: argparse.Namespace) -> None:
  from hrem_jax.retrieval.export import export

  print(f'{arguments.output}: the checkpoint of step {export(arguments.workdir, arguments.output)}')


def ablate(arguments: argparse.Namespace) -> None:
  from hrem_jax.training.ablation import ablate, format_rows

  config = read_configuration(arguments.flags)
  if arguments.data is not None:
    config.data.directory = str(arguments.data)
  variants = [name for name in arguments.variants.split(',') if name]
  print(format_rows(ablate(config, variants, num_seeds=arguments.seeds, output=arguments.output)))


class _ListVariants(argparse.Action):
  """Prints and ends, as --help does, whatever else is missing."""

  def __call__(self, parser, *_):
    from hrem_jax.variants import listing

    print(listing())
    parser.exit()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m hrem_jax', description=__doc__)
  commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

  demo = commands.add_parser('prepare-demo', help='compose the demo data set from OpenMoji artwork')
  demo.add_argument('--output', type=pathlib.Path, default=pathlib.Path('data'), help='gets demo_precomp/')
  for split, count in (('train', 2000), ('dev', 250), ('test', 500)):
    demo.add_argument(f'--num-{split}', type=int, default=count, help=f'pictures of {split} ({count})')
  demo.add_argument('--seed', type=int, default=0)
  demo.set_defaults(command=prepare_demo)

  examination = commands.add_parser('check', help='examine a data set and list all its problems')
  examination.add_argument('data', type=pathlib.Path, help='NAME_precomp, or a folder with such folders in it')
  examination.set_defaults(command=check)

  tfds = commands.add_parser('convert-data', help='write a data set as a TFDS data set in ArrayRecord')
  tfds.add_argument('data', type=pathlib.Path, help='NAME_precomp, or a folder with such folders in it')
  tfds.add_argument('--output', type=pathlib.Path, required=True, help='gets region_captions/NAME/VERSION/')
  tfds.set_defaults(command=convert_data)

  ablation = commands.add_parser(
    'ablate',
    help='train variants of a configuration with several seeds, and write the table',
    description='Options of the configuration (--config=FILE.py, --config.section.key=value) are as in training.',
    allow_abbrev=False,
  )
  ablation.add_argument('--variants', required=True, help='comma-separated: fusion,standalone,full,without_relevance')
  ablation.add_argument('--list', action=_ListVariants, nargs=0, help='print all variants and what each sets, and end')
  ablation.add_argument('--seeds', type=int, default=3, help='trainings per variant (3)')
  ablation.add_argument('--output', type=pathlib.Path, required=True, help='gets VARIANT/seed_N/ and the table')
  ablation.add_argument('--data', help=DATA_HELP)
  ablation.set_defaults(command=ablate, takes_flags=True)

  page = commands.add_parser('report', help='write a page with the results, examples and curves of a run')
  page.add_argument('workdir', type=pathlib.Path)
  page.add_argument('--output', type=pathlib.Path, help='WORKDIR/report.html')
  page.add_argument('--data', help=DATA_HELP)
  page.set_defaults(command=report)

  release = commands.add_parser('convert', help="turn the authors' PyTorch checkpoint into a workdir")
  release.add_argument('checkpoint', type=pathlib.Path, help='model_best.pth')
  release.add_argument('--output', type=pathlib.Path, required=True, help='the workdir, a new folder')
  release.add_argument('--vocabulary', type=pathlib.Path, help='Hugging Face folder, vocab.txt, tokenizer.json or SCAN')
  release.add_argument('--data', type=pathlib.Path, help=DATA_HELP)
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
