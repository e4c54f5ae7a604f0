"""Compares our numbers with files of public programs' numbers, array by array.

  python tests/golden_check.py METHOD FILE.npz ... [--float32]

METHOD is `hrem`, `gpo` or `scan`. What a file holds follows from its keys and shapes, never from its name. A line for
every array: its name, the error, and

  equal      within the bound: 1e-6 (1e-5 with --float32) of the largest entry or of 1, gradients 1e-4 of the largest
  short      beyond it
  used       an input, a weight or a setting
  not ours   the public program's own behaviour, which we do not reproduce
  unknown    nothing here asks for it

The exit status is 1 if anything is short or unknown.
"""

import argparse
import pathlib
import sys

import jax
import numpy as np
import synthetic
from golden_checks import gpo, hrem, scan
from golden_checks.golden_file import GoldenFile, Line

CHECKS = {'hrem': hrem.check, 'gpo': gpo.check, 'scan': scan.check}


def check_file(method: str, path: pathlib.Path, dtype=np.float64) -> list[Line]:
  """What became of every array of a file; a run of updates is compared in float64 whatever `dtype` is."""
  with np.load(path) as arrays:
    dtype = np.float64 if any(name.startswith('batch/00/') for name in arrays.files) else dtype
  with jax.enable_x64(np.dtype(dtype) == np.float64):
    file = GoldenFile(path, dtype)
    CHECKS[method](file)
    return file.lines()


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('method', choices=CHECKS)
  parser.add_argument('files', nargs='+', type=pathlib.Path, metavar='FILE.npz')
  parser.add_argument('--float32', action='store_true', help='instead of float64')
  arguments = parser.parse_args()
  synthetic.compile_less()
  failed = 0
  for path in arguments.files:
    lines = check_file(arguments.method, path, np.float32 if arguments.float32 else np.float64)
    print(path, *lines, sep='\n', flush=True)
    failed += sum(line.failed for line in lines)
  print(f'{failed} short or unknown' if failed else 'all equal')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
