"""A program for `test_distributed.py`: some steps on whatever devices and processes there are, and what came of them.

`twenty_steps.py --data=DIRECTORY --output=FILE.npz [--num_steps=20] [--warmup_steps=8] [--method=hrem]
[--coordinator=... --num_processes=... --process_id=...]` writes the gradient of every parameter at the first ones,
all metrics of all steps, and the parameters after the last one.
"""

import argparse
import functools
import pathlib

import flax
import jax
import numpy as np
import steps
import synthetic

from hrem_jax.distributed import processes
from hrem_jax.sharding import data_mesh, split_batch
from hrem_jax.training.setup import first_state, prepare
from hrem_jax.training.step import jit_train_step


def run(
  directory: pathlib.Path, workdir: pathlib.Path, num_steps: int, warmup_steps: int, method: str = 'hrem'
) -> dict[str, np.ndarray]:
  synthetic.compile_less()
  config = synthetic.tiny_config(directory, method)
  config.data.packing_groups = 8  # wherever it runs: dropout is drawn by place in the rows
  config.optimizer.clip_norm = 1e9
  if method == 'hrem':
    config.hrem.warmup_steps = warmup_steps
  else:
    config.loss.hardest_from = (warmup_steps, 'steps')
  setup, mesh = prepare(config, workdir), data_mesh()

  @functools.cache
  def update(phase, active):
    return jit_train_step(mesh, method=setup.run.method, optimizer=setup.optimizer, phase=phase, active=active)

  def update_after(step: int):
    return update(setup.phase(step), setup.optimizer.active(step))

  batch = split_batch(setup.batches.batch(0), mesh)
  state, _ = update_after(warmup_steps)(first_state(setup, mesh), batch, 0)
  # After one update Adam's first moment is a tenth of the gradient.
  groups = state.optimizer.inner_states
  moments = [flax.traverse_util.flatten_dict(steps.adam(state, name).mu, sep='/') for name in groups]
  found = {
    f'gradient/{name}': np.asarray(leaf) for flat in moments for name, leaf in flat.items() if hasattr(leaf, 'shape')
  }
  state, metrics = first_state(setup, mesh), {}
  for step in range(num_steps):
    batch = split_batch(setup.batches.batch(step), mesh)
    state, reported = update_after(step)(state, batch, 0)
    for name, value in reported.items():
      metrics.setdefault(f'metric/{name}', []).append(float(value))
  return found | {name: np.array(values) for name, values in metrics.items()} | _flat('parameter', state.params)


def _flat(kind: str, tree: dict) -> dict[str, np.ndarray]:
  flat = flax.traverse_util.flatten_dict(jax.device_get(tree), sep='/')
  return {f'{kind}/{name}': np.asarray(leaf) for name, leaf in flat.items()}


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--num_steps', type=int, default=20)
  parser.add_argument('--warmup_steps', type=int, default=8)
  parser.add_argument('--method', default='hrem')
  parser.add_argument('--coordinator')
  parser.add_argument('--num_processes', type=int)
  parser.add_argument('--process_id', type=int)
  arguments = parser.parse_args()
  with processes(arguments.coordinator, arguments.num_processes, arguments.process_id):
    workdir = arguments.output.with_suffix('')
    found = run(arguments.data, workdir, arguments.num_steps, arguments.warmup_steps, arguments.method)
    if jax.process_index() == 0:
      np.savez(arguments.output, devices=jax.device_count(), processes=jax.process_count(), **found)


if __name__ == '__main__':
  main()
