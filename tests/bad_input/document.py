"""Tries all cases and writes docs/errors.md: `PYTHONPATH=tests:. python -m bad_input.document`."""

import os
import pathlib
import re
import shutil
import tempfile

from bad_input import (
  cases_configuration,
  cases_data,
  cases_encoders,
  cases_pictures,
  cases_runs,
  cases_search,
  cases_weights,
  world,
)
from bad_input.table import Case, attempt

THEMES = {
  'Data sets': cases_data.CASES,
  'Configurations and flags': cases_configuration.CASES,
  'Weights, vocabularies, checkpoints of the release': cases_weights.CASES,
  'Encoders of pictures': cases_encoders.CASES,
  'Workdirs, checkpoints, TFDS, commands, disks': cases_runs.CASES,
  'Own pictures, transfer, caption ids, systems that refuse': cases_pictures.CASES,
  'Indexes and searches': cases_search.CASES,
}
PATH = pathlib.Path(__file__).parent.parent.parent / 'docs' / 'errors.md'
HEAD = """# What a mistake looks like

Made by `PYTHONPATH=tests:. python -m bad_input.document` of the table in `tests/bad_input/`, which the tests try: each
input ends with this one line on standard error and status 2, and files and folders are what they were before. `main` is
`python -m hrem_jax.main`, everything else a command of `python -m hrem_jax`; `W` is the folder in which it happens.
"""


def shown(case: Case) -> str:
  return case.command or '(nothing)'


def render(messages: dict[str, str]) -> str:
  """The page; `messages` are by `Case.what`."""
  parts = [HEAD]
  for theme, cases in THEMES.items():
    parts.append(f'## {theme}\n')
    for case in cases:
      parts.append(f'**{case.what}**: `{shown(case)}`\n\n    {messages[case.what]}\n')
  return '\n'.join(parts)


def read(path: pathlib.Path) -> list[tuple[str, str, str]]:
  """What is wrong, the command and the message of every row of the page."""
  return re.findall(r'^\*\*(.*)\*\*: `(.*)`\n\n    (.*)$', path.read_text('utf-8'), re.MULTILINE)


def write() -> None:
  messages = {}
  with tempfile.TemporaryDirectory() as folder:
    whole = pathlib.Path(folder) / 'whole' / 'world'
    world.make(whole)
    for case in (case for cases in THEMES.values() for case in cases):
      copy = pathlib.Path(shutil.copytree(whole, pathlib.Path(folder) / 'copy'))
      messages[case.what] = attempt(case, copy).line
      shutil.rmtree(copy)
  PATH.write_text(render(messages), 'utf-8')


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  write()
