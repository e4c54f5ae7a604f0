"""A program, run in a mount namespace of its own: the cases of read-only folders on one that is mounted so.

`unshare --mount python -m bad_input.mounted WORLD` prints a line of JSON per case: what, status, lines of its
standard error.
"""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from bad_input.cases_pictures import CASES
from bad_input.refusing import read_only
from bad_input.table import attempt


def mount(options: str, world: pathlib.Path) -> None:
  subprocess.run(['mount', '-o', f'bind,{options}', world, world], check=True)


@contextlib.contextmanager
def mounted_read_only(world: pathlib.Path) -> Iterator[None]:
  mount('remount,ro', world)
  try:
    yield
  finally:
    mount('remount,rw', world)


def main() -> None:
  world = pathlib.Path(sys.argv[1])
  mount('rw', world)
  for case in (case for case in CASES if case.under is read_only):
    outcome = attempt(dataclasses.replace(case, under=mounted_read_only), world)
    print(json.dumps([case.what, outcome.status, outcome.errors]), flush=True)


if __name__ == '__main__':
  main()
