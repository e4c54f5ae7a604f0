"""Killed at random moments again and again, a training ends bitwise as the one that nothing happened to."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
import synthetic
from runs import assert_same_run

from hrem_jax.retrieval.run import step_folders

TESTS = pathlib.Path(__file__).parents[1]
NUM_STEPS, CHECKPOINT_EVERY = 48, 2
TRAIN = """
import pathlib, sys
from absl import flags, logging
import synthetic
from hrem_jax.training import loop

logging.set_verbosity(logging.ERROR)
flags.FLAGS.mark_as_parsed()
directory, workdir = map(pathlib.Path, sys.argv[1:])
config = synthetic.tiny_config(directory)
config.data.sampler = 'neighbours'
config.data.neighbours.update(images_per_cluster=4, cluster_size=8, features='embeddings')
config.training.update(num_epochs=4, checkpoint_every_steps=2, log_every_steps=1)
config.evaluation.every_epochs = 0.75
config.optimizer.update(decay_epochs=(1, 3))
config.hrem.warmup_steps = 30
update = loop.CompiledSteps.__call__

def announced(self, state, batch):
  result = update(self, state, batch)
  print(int(result[0].step), flush=True)
  return result

loop.CompiledSteps.__call__ = announced
loop.train(config, workdir)
"""


class Start:
  """One start of the training in a process of its own; `steps` are those that it did."""

  def __init__(self, directory: pathlib.Path, workdir: pathlib.Path):
    environment = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': os.pathsep.join([str(TESTS.parent), str(TESTS)]),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self._log = (directory / f'{workdir.name}.log').open('a')
    self._process = subprocess.Popen(
      [sys.executable, '-c', TRAIN, str(directory), str(workdir)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
    )
    self.steps = []

  def read(self, num_steps: int | None = None) -> bool:
    """Waits for so many steps, or for the end; whether there were so many."""
    while num_steps is None or len(self.steps) < num_steps:
      line = self._process.stdout.readline()
      if not line:
        return False
      if line.strip().isdecimal():
        self.steps.append(int(line))
    return True

  def end(self, number: int | None = None) -> int:
    """Sends a signal and waits for the end: the exit status."""
    if number is not None:
      self._process.send_signal(number)
    self.read()
    self._process.stdout.close()
    self._log.close()
    return self._process.wait(timeout=300)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bitwise_the_same(tmp_path, capsys):
  """Neighbour batches of embeddings, warm-up, decay, length buckets, a graph; saved at every second step."""
  synthetic.write_data_set(tmp_path)
  whole = Start(tmp_path, tmp_path / 'whole')
  assert whole.end() == 0
  assert whole.steps == list(range(1, NUM_STEPS + 1))
  rng, counts = random.Random(0), dict.fromkeys(('SIGKILL', 'SIGTERM', 'while saving', 'steps redone'), 0)
  workdir, saved, done, started = tmp_path / 'killed', 0, 0, time.perf_counter()
  folder = workdir / 'checkpoints'
  while True:
    start = Start(tmp_path, workdir)
    is_alive = start.read(rng.randint(1, 6))
    if start.steps:
      assert start.steps[0] == saved + 1
      counts['steps redone'] += max(done - saved, 0)
    if not is_alive:
      assert start.end() == 0
      break
    time.sleep(rng.uniform(0, 0.3))
    number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
    status = start.end(number)
    if status == 0:  # it was in the last evaluation
      break
    before, saved, done = saved, max(step_folders(folder), default=0), start.steps[-1]
    if number == signal.SIGTERM:
      assert (status, saved) == (75, done)
    else:
      assert status == -signal.SIGKILL
      # What was begun to be saved when the next save was due is whole: at most two intervals are done again.
      assert saved >= max(before, done - 2 * CHECKPOINT_EVERY)
      counts['while saving'] += any('orbax-checkpoint-tmp' in path.name for path in folder.iterdir())
    counts[number.name] += 1
  with capsys.disabled():
    print(f'\n{counts}, {time.perf_counter() - started:.0f} s')
  assert counts['SIGKILL'] + counts['SIGTERM'] >= 20
  assert counts['while saving'] >= 1
  assert_same_run(workdir, tmp_path / 'whole')
  assert not [path.name for path in folder.iterdir() if not path.name.isdecimal()]
