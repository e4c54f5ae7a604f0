"""A training that is stopped, or finds damaged checkpoints, ends as the one that nothing happened to."""

import json
import os
import pathlib
import re
import shutil
import signal
import threading

import jax
import pytest
import synthetic
from runs import assert_same_run, reports

from hrem_jax.data.pipeline import read_ahead
from hrem_jax.errors import UserError
from hrem_jax.retrieval.evaluation import evaluate_best
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.run import restore_variables, step_folders
from hrem_jax.sharding import data_mesh
from hrem_jax.training import loop
from hrem_jax.training.checkpoint import Checkpoints
from hrem_jax.training.preemption import EXIT_INTERRUPTED, EXIT_PREEMPTED, Stopped, StopRequests
from hrem_jax.training.progress import Progress
from hrem_jax.training.setup import prepare, state_shapes

NUM_STEPS = 24


@pytest.fixture(scope='module')
def config(directory):
  """One program to compile, two epochs, checkpoints between the evaluations of steps 12 and 24."""
  config = synthetic.tiny_config(directory)
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
  config.training.update(num_epochs=2, checkpoint_every_steps=5, log_every_steps=1)
  return config


@pytest.fixture(scope='module')
def whole_run(directory, config) -> pathlib.Path:
  loop.train(config, directory / 'whole')
  return directory / 'whole'


def train_signalled(config, workdir, number: int, *, at: int | str) -> int:
  """Trains, gets a signal in the step after `at` others, or in the evaluation, or before the first step: the status."""

  def signalling(function, is_now=lambda *_: True):
    def wrapper(*arguments, **options):
      if is_now(*arguments):
        os.kill(os.getpid(), number)
      return function(*arguments, **options)

    return wrapper

  handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
  with pytest.MonkeyPatch.context() as patch:
    if at == 'start':
      patch.setattr(loop, 'prepare', signalling(prepare))
    elif at == 'evaluation':
      patch.setattr(Evaluator, 'evaluate', signalling(Evaluator.evaluate))
    else:
      update = signalling(loop.CompiledSteps.__call__, lambda _, state, __: int(state.step) == at)
      patch.setattr(loop.CompiledSteps, '__call__', update)
    with pytest.raises(Stopped) as stopped:
      loop.train(config, workdir)
  assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
  return stopped.value.code


def test_stopped_wherever_it_is_it_ends_bitwise_the_same(directory, config, whole_run, capsys):
  workdir = directory / 'stopped'
  assert train_signalled(config, workdir, signal.SIGTERM, at='start') == EXIT_PREEMPTED == 75
  assert step_folders(workdir / 'checkpoints') == []
  assert train_signalled(config, workdir, signal.SIGTERM, at=6) == EXIT_PREEMPTED
  assert 'stopped after step 7 as asked; the same command goes on' in capsys.readouterr().err
  assert step_folders(workdir / 'checkpoints') == [7]
  assert [report['step'] for report in reports(workdir)] == list(range(1, 8))
  assert train_signalled(config, workdir, signal.SIGTERM, at='evaluation') == EXIT_PREEMPTED
  assert step_folders(workdir / 'checkpoints') == [12]
  assert train_signalled(config, workdir, signal.SIGINT, at=16) == EXIT_INTERRUPTED == 130
  assert step_folders(workdir / 'checkpoints') == [12, 17]
  loop.train(config, workdir)
  assert_same_run(workdir, whole_run)


def test_a_restart_holds_one_state_and_draws_none(two_checkpoints, directory, config, monkeypatch):
  """Nothing is initialised or read from a folder of weights where there is a checkpoint: only shapes are known."""
  workdir, live = directory / 'one', []
  shutil.copytree(two_checkpoints, workdir)

  def counting(self, state, batch):
    others = [
      array for array in jax.live_arrays() if not any(array is leaf for leaf in jax.tree.leaves((state, batch)))
    ]
    live.append(sum(array.nbytes for array in others) / sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
    raise KeyboardInterrupt

  before = sum(array.nbytes for array in jax.live_arrays())
  monkeypatch.setattr(loop, 'first_state', lambda *_: pytest.fail('a state was drawn'))
  monkeypatch.setattr(loop.CompiledSteps, '__call__', counting)
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, workdir)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(synthetic.state_on_disk(workdir, 7)))
  assert live[0] < before + 0.2 * size


def test_a_second_ctrl_c_does_not_wait():
  with StopRequests() as stop:
    assert not stop.after(1)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.after(1)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_off_the_main_thread_signals_are_left_alone():
  seen = []

  def work():
    with StopRequests() as stop:
      seen.append((stop.after(1), signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [(False, signal.getsignal(signal.SIGTERM))]


def test_what_a_killed_run_left_of_later_steps_is_done_again(tmp_path):
  """A line of a step that is not in the checkpoint, one of an evaluation, and half a line."""
  lines = [json.dumps({'kind': 'train', 'step': step, 'loss': 1.0}) for step in (1, 2, 3)]
  lines += [json.dumps({'kind': 'dev', 'step': step, 'rsum': 2.0}) for step in (2, 3)]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n{"kind": "train", "st')
  options = dict(num_steps=9, steps_per_epoch=3, batch_size=5)
  with Progress(tmp_path, first_step=2, **options) as progress:
    progress.training(3, {'loss': 7.0, 'learning_rate': 1e-3})
    for rsum in (8.0, 9.0):  # the last evaluation, done again
      progress.evaluation(2, 'test', {'rsum': rsum})
  found = [(r['kind'], r['step'], r.get('loss', r.get('rsum'))) for r in reports(tmp_path)]
  assert found == [('train', 1, 1.0), ('train', 2, 1.0), ('dev', 2, 2.0), ('train', 3, 7.0), ('test', 2, 9.0)]


@pytest.fixture(scope='module')
def two_checkpoints(directory, config, whole_run) -> pathlib.Path:
  """A workdir stopped after step 7, with the checkpoint of step 5 that would not be kept."""
  workdir = directory / 'two'
  train_signalled(config, workdir, signal.SIGTERM, at=4)
  shutil.copytree(workdir / 'checkpoints' / '5', directory / 'kept')
  train_signalled(config, workdir, signal.SIGTERM, at=6)
  shutil.move(directory / 'kept', workdir / 'checkpoints' / '5')
  assert step_folders(workdir / 'checkpoints') == [5, 7]
  return workdir


def largest_file(checkpoint: pathlib.Path) -> pathlib.Path:
  return max(checkpoint.glob('state/ocdbt.process_0/d/*'), key=lambda path: path.stat().st_size)


def truncate(checkpoint: pathlib.Path) -> None:
  os.truncate(largest_file(checkpoint), largest_file(checkpoint).stat().st_size // 2)


def flip_a_bit(checkpoint: pathlib.Path) -> None:
  content = bytearray(largest_file(checkpoint).read_bytes())
  content[len(content) // 2] ^= 8
  largest_file(checkpoint).write_bytes(content)


def empty(checkpoint: pathlib.Path) -> None:
  shutil.rmtree(checkpoint)
  checkpoint.mkdir()


def without_checksums(damage):
  """A checkpoint that was written by a start that was killed right after, and later damaged."""

  def both(checkpoint: pathlib.Path) -> None:
    (checkpoint / 'checksums.json').unlink(missing_ok=True)
    damage(checkpoint)

  return both


def score(content: str):
  """What a checkpoint would be chosen by; that of step 7 was not evaluated."""

  def write(checkpoint: pathlib.Path) -> None:
    (checkpoint / 'metrics').mkdir()
    (checkpoint / 'metrics' / 'metrics').write_text(content)

  return write


DAMAGES = {
  'half a file': (truncate, 'is not what was written'),
  'another bit': (flip_a_bit, 'is not what was written'),
  'no state': (lambda path: shutil.rmtree(path / 'state'), r'state/_METADATA is missing \(\d+ of \d+ files are\)'),
  'no data position': (lambda path: shutil.rmtree(path / 'data'), 'data/.* is missing'),
  'no metadata': (lambda path: (path / 'state' / '_METADATA').unlink(), 'state/_METADATA is missing'),
  'half of the checksums': (lambda path: os.truncate(path / 'checksums.json', 100), 'checksums.json: not JSON'),
  'an empty folder': (empty, '_METADATA'),
  'no state, no checksums': (without_checksums(lambda path: shutil.rmtree(path / 'state')), '_METADATA'),
  'no position, no checksums': (without_checksums(lambda path: shutil.rmtree(path / 'data')), 'process_.*missing'),
  'no checksums of anything': (lambda path: (path / 'checksums.json').write_text('{}'), 'expected an object'),
  'a score from elsewhere': (score('{"rsum": 599.0}'), 'metrics/metrics was not there when it was written'),
  'half a score': (without_checksums(score('{"rsum": 40')), 'metrics/metrics: not JSON'),
  **{
    f'a score that is {found}': (
      without_checksums(score(f'{{"rsum": {found}}}')),
      'metrics/metrics: expected JSON with the rsum .* found',
    )
    for found in ('NaN', 'Infinity', 'true', '"high"', 'null', '[1]')
  },
}


@pytest.fixture(scope='module')
def restored_step(directory, config):
  """The step that a workdir goes on from, and the position of its data."""
  setup = prepare(config, directory / 'setup')
  shapes = state_shapes(setup, data_mesh())

  def restore(workdir: pathlib.Path) -> int:
    iterator = read_ahead(setup.batches, setup.num_steps)
    with Checkpoints(workdir) as checkpoints:
      step = int(checkpoints.restore_latest(shapes, iterator).step)
    assert iterator.get_state() == {'next_index': step}
    return step

  return restore


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
  two_checkpoints, restored_step, tmp_path, capsys, damage
):
  workdir, (spoil, message) = tmp_path / 'run', DAMAGES[damage]
  shutil.copytree(two_checkpoints, workdir)
  assert restored_step(workdir) == 7
  assert 'DAMAGED' not in capsys.readouterr().err
  spoil(workdir / 'checkpoints' / '7')
  assert restored_step(workdir) == 5
  said = capsys.readouterr().err
  named = f'hrem_jax: DAMAGED CHECKPOINT {workdir}/checkpoints/7: '
  assert said.startswith(named)
  assert re.search(message, said), said
  assert 'it is now 7.damaged and is not used' in said
  assert len(said.splitlines()) == 2, said
  assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['5', '7.damaged']


def test_after_damage_the_same_step_is_saved_again_and_the_end_is_the_same(
  two_checkpoints, config, whole_run, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(two_checkpoints, workdir)
  for name in ('7.damaged', '7.damaged2'):
    truncate(workdir / 'checkpoints' / '7')
    assert train_signalled(config, workdir, signal.SIGTERM, at=6) == EXIT_PREEMPTED
    assert {path.name for path in (workdir / 'checkpoints').iterdir()} >= {name, '7'}
    shutil.copytree(two_checkpoints / 'checkpoints' / '5', workdir / 'checkpoints' / '5')
  loop.train(config, workdir)
  assert_same_run(workdir, whole_run)


def test_without_a_whole_checkpoint_nothing_is_begun_anew(two_checkpoints, config, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two_checkpoints, workdir)
  truncate(workdir / 'checkpoints' / '5')
  empty(workdir / 'checkpoints' / '7')
  for _ in range(2):  # the second start finds what the first one found
    with pytest.raises(UserError, match=f'{workdir}/checkpoints: no whole checkpoint is there to go on from.*7: .*5: '):
      loop.train(config, workdir)
    assert step_folders(workdir / 'checkpoints') == [5, 7]


def test_a_damaged_best_checkpoint_is_no_other_one(whole_run, config, tmp_path, capsys):
  """Evaluation does not take the second best; a training that goes on chooses among what is whole, and says so."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole_run, workdir)
  last = workdir / 'checkpoints' / str(NUM_STEPS)
  scores = json.loads((last / 'metrics' / 'metrics').read_text())
  best = workdir / 'checkpoints' / '12'
  shutil.rmtree(best, ignore_errors=True)
  shutil.copytree(last, best)
  (best / 'metrics' / 'metrics').write_text(json.dumps({**scores, 'rsum': 599.0}))
  with pytest.raises(UserError, match=f'{best}: damaged: metrics/metrics is not what was written'):
    evaluate_best(workdir)
  loop.train(config, workdir)
  assert f'DAMAGED CHECKPOINT {best}: damaged: metrics/metrics' in capsys.readouterr().err
  assert json.loads((workdir / 'results.json').read_text())['step'] == NUM_STEPS
  torn_score_path = last / 'metrics' / 'metrics'
  torn_score_path.write_text('{"rsum": ')
  with pytest.raises(UserError, match=f'{last}: damaged: metrics/metrics is not what was written'):
    evaluate_best(workdir)
  shutil.rmtree(torn_score_path.parent)
  with pytest.raises(UserError, match=f'{last}: damaged: metrics/metrics is missing'):
    evaluate_best(workdir)


def test_checkpoints_of_another_optimizer_are_used_but_not_gone_on_with(two_checkpoints, restored_step, tmp_path):
  """As the first versions wrote them: a state for each of two groups, no counts of skipped updates."""
  import orbax.checkpoint as ocp

  workdir = tmp_path / 'run'
  shutil.copytree(two_checkpoints, workdir)
  state = synthetic.state_on_disk(workdir, 7)
  old = {name: value for name, value in state.items() if name in ('step', 'params', 'batch_stats')}
  folder = workdir / 'checkpoints' / '7'
  shutil.rmtree(folder / 'state')
  (folder / 'checksums.json').unlink()
  with ocp.StandardCheckpointer() as checkpointer:
    old = jax.tree.map(jax.numpy.asarray, old | {'optimizer': {'encoders': [{'mu': old['params']}]}})
    checkpointer.save(folder / 'state', old)
  with pytest.raises(UserError, match='7: written by an earlier version of hrem_jax.* in another --workdir'):
    restored_step(workdir)
  assert folder.is_dir()
  assert sorted(restore_variables(workdir, 7)) == ['batch_stats', 'params']


def test_the_data_position_is_that_of_any_number_of_processes(two_checkpoints, restored_step, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(two_checkpoints, workdir)
  folder = workdir / 'checkpoints' / '7'
  (folder / 'checksums.json').unlink()
  position = folder / 'data' / 'process_0-of-1.json'
  for process in range(2):
    shutil.copy(position, position.with_name(f'process_{process}-of-2.json'))
  position.unlink()
  assert restored_step(workdir) == 7
