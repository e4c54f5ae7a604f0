"""`check`: is a data set whole, or an index?"""

import argparse
import pathlib
import sys

from hrem_jax.paths import local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('check', help='examine a data set or an index and list all its problems')
  parser.add_argument('data', type=local_path, help='NAME_precomp, a folder with such folders in it, or an index')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  """Ends with status 2 where there are problems."""
  from tqdm import tqdm

  from hrem_jax.data.check import examine, format_counts
  from hrem_jax.data.sources import precomputed_folders
  from hrem_jax.methods.registry import default_config

  if arguments.data.is_file():
    _check_index(arguments.data)
    return
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


def _check_index(path: pathlib.Path) -> None:
  """Reads all of an index."""
  from hrem_jax.search.index import open_index

  index = open_index(path)
  if problems := index.problems():
    print(*problems, f'{path}: {len(problems)} problem(s)', sep='\n')
    sys.exit(2)
  state = index.state()
  print(
    f'{path}: whole; {state.pictures:,} pictures, {state.about.views} embedding(s) of size {state.about.size} each in '
    f'{state.about.dtype}, encoder {state.about.encoder["place"]["path"]}'
  )
