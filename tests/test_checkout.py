"""What documented commands leave in a checkout changes nothing that lint, packaging or git say of it."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / name for name in ('README.md', 'Makefile', 'CONTRIBUTING.md')]
DOCUMENTS += [path for folder in ('docs', 'launch') for path in sorted((ROOT / folder).iterdir()) if path.is_file()]
DOCUMENTS.remove(ROOT / 'docs' / 'errors.md')  # its commands are those of a test, in a folder of its own
WRITES = re.compile(r'(?:--output|--workdir|--index|--data_dir|-o)[= ]+(?!\w+://)([\w./%-]+)')
# Left without being named in a command: environments, builds and caches, the demo's data, a container's cache.
LEFT = [
  '.venv/lib/python3/site-packages/package',
  'build/lib/hrem_jax',
  'dist',
  'hrem_jax.egg-info',
  '.pytest_cache/v',
  '.ruff_cache/0',
  '.hypothesis/examples',
  'tests/__pycache__',
  'hrem_jax/ops/__pycache__',
  '.cache/hrem_jax',
  'data/demo_precomp/pictures',
  'data/own_precomp',
  'runs/demo/checkpoints/7',
]
UNTIDY = 'import sys, os\nfrom runs import x\n'  # what a linter complains of


def written() -> set[str]:
  """Paths in this folder that commands of the documents write to."""
  found = {path for document in DOCUMENTS for path in WRITES.findall(document.read_text('utf-8', errors='replace'))}
  return {path for path in found if path[0].islower()}  # not /absolute, ... or PLACEHOLDER


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """A clone of this checkout as it is now, with everything in it that commands leave: folders, a file each."""
  if not (ROOT / '.git').exists():
    pytest.skip('not a checkout of git')
  folder = tmp_path_factory.mktemp('checkout') / 'hrem_jax'
  files = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, check=True, capture_output=True, text=True).stdout
  for name in files.rstrip('\0').split('\0'):
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, folder / name)
  for command in (['init', '--quiet'], ['add', '--all']):
    subprocess.run(['git', *command], cwd=folder, check=True)
  before = packaged(folder)
  for path in sorted({*LEFT, *written()}):
    if '.' in pathlib.Path(path).name and path not in LEFT:  # a file
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      (folder / path).write_text('of a command\n')
    else:
      (folder / path).mkdir(parents=True, exist_ok=True)
      (folder / path / 'untidy.py').write_text(UNTIDY)
  return folder, before


def packaged(folder: pathlib.Path) -> str:
  """The packages and modules that would be installed."""
  program = (
    'from setuptools.dist import Distribution; d = Distribution(); d.parse_config_files(); '
    'd.set_defaults(); print(sorted(d.packages), d.py_modules)'
  )
  command = [sys.executable, '-c', program]
  return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_documents_are_searched():
  assert {'data', 'runs/demo', 'runs/own', 'runs/own.index', 'exported', 'index', 'tfds'} <= written()


@pytest.mark.parametrize('arguments', [['check', '.'], ['format', '--check', '.']], ids=['check', 'format'])
def test_lint_finds_nothing(checkout, arguments):
  command = [sys.executable, '-m', 'ruff', *arguments, '--no-cache']
  result = subprocess.run(command, cwd=checkout[0], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout + result.stderr


def test_git_sees_no_change(checkout):
  command = ['git', 'status', '--porcelain', '--untracked-files=all']
  lines = subprocess.run(command, cwd=checkout[0], check=True, capture_output=True, text=True).stdout.splitlines()
  assert [line for line in lines if not line.startswith('A  ')] == []


def test_the_same_packages_are_installed(checkout):
  assert packaged(checkout[0]) == checkout[1]
  assert "'hrem_jax.ops'" in checkout[1]
