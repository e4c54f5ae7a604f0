"""Runs all benchmarks, one after the other, and writes what they found to `runs/benchmarks.json`.

A list of `{name, figure, target, met}`; `make bench` calls this. The PyTorch peer takes part where torch is installed.

  python benchmarks/run.py [--weights FOLDER_OF_A_BERT]   # the folder only for its WordPiece vocabulary
  python benchmarks/run.py --only association step        # the other figures stay as they were
  python benchmarks/run.py --output benchmarks/latest.json   # those that docs/performance.md tells
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent


def run(script: str, *options: str) -> list[dict]:
  """Its figures; what it prints is shown as it comes."""
  print(f'\n$ python benchmarks/{script} {" ".join(options)}', flush=True)
  started, last = time.perf_counter(), ''
  command = [sys.executable, str(HERE / script), *options]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as child:
    for line in child.stdout:
      if line.startswith('[{'):
        last = line
      else:
        print(line, end='', flush=True)
  if child.returncode:
    sys.exit(f'benchmarks/{script} ended with status {child.returncode}; no figures were written')
  print(f'({time.perf_counter() - started:.0f} s)', flush=True)
  return json.loads(last)


def title(figure: dict) -> str:
  """Of the script that a figure comes from."""
  return figure['name'].split(',')[0]


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--weights', help='folder of a BERT, to measure the start with its vocabulary')
  parser.add_argument('--output', type=pathlib.Path, default=HERE.parent / 'runs' / 'benchmarks.json')
  parser.add_argument('--only', nargs='+', metavar='SCRIPT', help='without its .py')
  arguments = parser.parse_args()
  scripts = [
    ('association.py',),
    ('cross_attention.py',),
    ('step.py',),
    ('evaluation.py',),
    ('scores.py',),
    ('input.py', *(('--weights', arguments.weights) if arguments.weights else ())),
    ('restart.py',),
    ('scaling.py',),
    ('search.py',),
  ]
  if (HERE / 'torch_peer.py').is_file() and importlib.util.find_spec('torch'):
    scripts.append(('torch_peer.py',))
  scripts = [script for script in scripts if not arguments.only or script[0].removesuffix('.py') in arguments.only]
  results = {}
  output = arguments.output
  for figure in json.loads(output.read_text()) if arguments.only and output.is_file() else []:
    results.setdefault(title(figure), []).append(figure)
  for script in scripts:
    figures = run(*script)
    results[title(figures[0])] = figures
  results = [figure for figures in results.values() for figure in figures]
  output.parent.mkdir(exist_ok=True)
  output.write_text('[\n' + ',\n'.join(f'  {json.dumps(figure)}' for figure in results) + '\n]\n')
  promised = [figure for figure in results if figure['target']]
  missed = [figure for figure in promised if not figure['met']]
  print(f'\n{output}: {len(promised) - len(missed)} of {len(promised)} targets met')
  for figure in missed:
    print(f'  missed: {figure["name"]}: {figure["figure"]}, target {figure["target"]}')


if __name__ == '__main__':
  main()
