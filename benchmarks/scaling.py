"""What each device does in a step on 1, 2, 4, 8 and 64 devices, read off the compiled programs.

BERT-base with the graph, once with the same global batch on all numbers of devices, once with the same batch per
device. The devices are virtual (one CPU as many), nothing is run: compiled is what a real one would be given, and
counted are its multiply-adds, the bytes that its collectives bring it, and its memory. 64 devices with the same global
batch of 128 are left out: two examples on a device are nobody's training.

  python benchmarks/scaling.py --plot docs/scaling.png   # the plot needs matplotlib
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
from hlo import costs
from measure import Figure, build_step, make_batch, show

from hrem_jax.methods.registry import default_config

BATCH = 128


def compile_step(num_devices: int, batch_size: int) -> dict:
  """In a process of its own, whose number of devices is set before JAX starts."""
  config = default_config()
  batch = make_batch(config, batch_size, num_groups=num_devices)
  step, init = build_step(config, graph=True)
  compiled = step.lower(jax.eval_shape(init, jax.random.key(0)), batch, np.uint32(0)).compile()
  counted, memory = costs(compiled.as_text()), compiled.memory_analysis()
  return dict(
    multiply_adds=counted.multiply_adds.total(),
    collective_bytes=counted.collective_bytes.total(),
    collectives=dict(counted.collective_bytes),
    memory=memory.argument_size_in_bytes + memory.temp_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
  )


def in_new_process(num_devices: int, batch_size: int) -> dict:
  devices = f'--xla_force_host_platform_device_count={num_devices}'
  environment = os.environ | {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {devices}', 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, __file__, '--one', str(num_devices), str(batch_size)]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
  return json.loads(done.stdout)


def figures(name: str, num_devices: int, found: dict, single: dict, limit: float | None) -> Iterator[Figure]:
  share = found['multiply_adds'] / single['multiply_adds']
  note = f'{found["multiply_adds"] / 1e9:.0f} G'
  yield Figure(f'{name}: multiply-adds of the single device', share, 'x', at_most=limit, note=note)
  kinds = ', '.join(f'{kind} {size / 1e6:.1f}' for kind, size in sorted(found['collectives'].items()))
  yield Figure(f'{name}: collectives per device', found['collective_bytes'] / 1e6, 'MB', note=kinds)
  note = f'{found["temporary"] / 1e9:.2f} GB besides state and batch'
  yield Figure(f'{name}: memory per device', found['memory'] / 1e9, 'GB', note=note)


def compare(arguments: argparse.Namespace, curves: dict) -> Iterator[Figure]:
  single = None
  for kind, counts in (('same global batch', arguments.fixed), ('same batch per device', arguments.growing)):
    for num_devices in counts:
      size = BATCH if kind == 'same global batch' else BATCH * num_devices
      found = single if num_devices == 1 and single else in_new_process(num_devices, size)
      single = single or found
      curves.setdefault(kind, []).append((num_devices, found))
      limit = 1 / 7 if num_devices == 8 and size == BATCH else None
      yield from figures(f'{num_devices} devices, batch {size}', num_devices, found, single, limit)


def plot(curves: dict, path: pathlib.Path) -> None:
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  quantities = (
    ('multiply_adds', 1e9, 'multiply-adds per device (G)'),
    ('collective_bytes', 1e6, 'collectives per device (MB)'),
    ('memory', 1e9, 'memory per device (GB)'),
  )
  figure, all_axes = plt.subplots(1, len(quantities), figsize=(13, 3.8), layout='constrained')
  for axes, (key, unit, title) in zip(all_axes, quantities, strict=True):
    for (kind, points), marker in zip(curves.items(), 'os', strict=True):
      devices, values = zip(*((count, found[key] / unit) for count, found in points), strict=True)
      axes.plot(devices, values, marker=marker, label=f'{kind} ({BATCH})')
    if key == 'multiply_adds':
      devices = [count for count, _ in curves['same global batch']]
      first = curves['same global batch'][0][1][key] / unit
      axes.plot(devices, [first / count for count in devices], ':', color='gray', label='divided evenly')
      axes.set_yscale('log', base=2)
      axes.yaxis.set_major_formatter('{x:g}')
    else:
      axes.set_ylim(bottom=0)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set(title=title, xlabel='devices')
    axes.grid(alpha=0.3)
  all_axes[0].legend(frameon=False, fontsize='small')
  figure.savefig(path, dpi=110)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--fixed', type=int, nargs='+', default=[1, 2, 4, 8], help='devices for the same global batch')
  parser.add_argument('--growing', type=int, nargs='+', default=[1, 2, 4, 8, 64], help='for the same batch per device')
  parser.add_argument('--plot', type=pathlib.Path, help='a picture of the curves')
  parser.add_argument('--one', type=int, nargs=2, help=argparse.SUPPRESS)  # one program: devices, batch size
  arguments = parser.parse_args()
  if arguments.one:
    print(json.dumps(compile_step(*arguments.one)))
    return
  curves = {}
  show('scaling', compare(arguments, curves))
  if arguments.plot:
    plot(curves, arguments.plot)


if __name__ == '__main__':
  main()
