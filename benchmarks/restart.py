"""Memory of a restart beside that of the training: a resumed training must never hold two states.

A BERT-base is trained for two updates and saved; the same command goes on. Counted are the bytes of all live arrays of
JAX, most of which are the state, and the process's memory, sampled all the while.

  python benchmarks/restart.py
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import numpy as np
from measure import Figure, show

BATCH, STEPS = 8, 2


class Sampled(threading.Thread):
  """The largest sum of live arrays, and of resident memory, until `end`."""

  def __init__(self):
    super().__init__(daemon=True)
    self.arrays = self.resident = 0
    self._ends = threading.Event()

  def run(self) -> None:
    import jax

    while not self._ends.is_set():
      self.arrays = max(self.arrays, sum(array.nbytes for array in jax.live_arrays()))
      status = pathlib.Path('/proc/self/statm').read_text().split()
      self.resident = max(self.resident, int(status[1]) * 4096)
      time.sleep(0.01)

  def end(self) -> tuple[int, int]:
    self._ends.set()
    self.join()
    return self.arrays, self.resident


def write_data(folder: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  folder.mkdir()
  for split, count in (('train', BATCH * STEPS), ('dev', BATCH), ('test', BATCH)):
    np.save(folder / f'{split}_ims.npy', rng.standard_normal((count, 4, 16), np.float32))
    (folder / f'{split}_caps.txt').write_text(''.join(f'number {row} of {split}\n' for row in range(count)))


def measure(folder: pathlib.Path, num_epochs: int) -> dict[str, tuple[int, int]]:
  """In a process of its own: peaks until the first update, and of what comes after it."""
  from hrem_jax.methods.registry import default_config
  from hrem_jax.training import loop

  config = default_config()
  config.data.update(directory=str(folder), name='tiny', cache=str(folder / 'cache'))
  config.model.region_size = 16
  config.hrem.interaction = 'none'
  config.training.update(batch_size=BATCH, num_epochs=num_epochs, checkpoint_every_steps=STEPS)
  config.evaluation.batch_size = BATCH
  samples, sampled, update = {}, [Sampled()], loop.CompiledSteps.__call__

  def watched(self, state, batch):
    new, metrics = update(self, state, batch)
    if 'start' not in samples:
      samples['start'] = sampled[0].end()
      sampled[0] = Sampled()
      sampled[0].start()
    return new, metrics

  def stop_before_evaluation(*_, **__):
    samples['training'] = sampled[0].end()
    return 0, {}

  loop.CompiledSteps.__call__ = watched
  loop.evaluate_best = stop_before_evaluation
  sampled[0].start()
  loop.train(config, folder / 'run')
  return samples


def in_new_process(folder: pathlib.Path, num_epochs: int) -> dict:
  command = [sys.executable, __file__, '--folder', str(folder), '--epochs', str(num_epochs)]
  child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  return json.loads(child.stdout.splitlines()[-1])


def compare() -> Iterator[Figure]:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_data(folder / 'tiny_precomp')
    first, again = in_new_process(folder, 1), in_new_process(folder, 2)
  for index, what in enumerate(('live arrays', 'resident memory')):
    training = first['training'][index]
    for kind, found in (('restart', again), ('first start', first)):
      note = f'{found["start"][index] / 1e9:.2f} GB, training {training / 1e9:.2f} GB'
      limit = 1.2 if (kind, index) == ('restart', 0) else None
      yield Figure(f'{kind}: {what}, times training', found['start'][index] / training, 'x', at_most=limit, note=note)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)  # of one measurement
  parser.add_argument('--epochs', type=int, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.folder:
    print(json.dumps(measure(arguments.folder, arguments.epochs)))
  else:
    show('restart', compare())


if __name__ == '__main__':
  main()
