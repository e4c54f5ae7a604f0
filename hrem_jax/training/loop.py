"""The training loop. There is one."""

import pathlib
import time
from collections.abc import Hashable

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hrem_jax.data.outliers import warnings_of
from hrem_jax.data.pipeline import read_ahead
from hrem_jax.data.token_cache import cache_folder
from hrem_jax.retrieval.checkpoint_folder import checkpoint_folder
from hrem_jax.retrieval.evaluation import evaluate_best
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.protocols import format_table
from hrem_jax.sharding import data_mesh, split_batch
from hrem_jax.training.checkpoint import Checkpoints
from hrem_jax.training.guard import Guard
from hrem_jax.training.neighbours import Neighbours
from hrem_jax.training.preemption import Stopped, StopRequests
from hrem_jax.training.progress import Progress
from hrem_jax.training.setup import Setup, first_state, prepare, state_shapes
from hrem_jax.training.state import TrainState, count_parameters
from hrem_jax.training.step import jit_train_step


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, float]:
  """Trains, selects the best checkpoint on the selection split, and evaluates it once on the test split.

  Called again with the same arguments it goes on from the newest checkpoint, as if it had never ended.

  Returns:
    The metrics of the test split, also in `workdir/results.json`.

  Raises:
    UserError: Something in the configuration, the data or the workdir is wrong, or the training diverged.
    Stopped: SIGTERM or Ctrl-C came; what was done is saved.
  """
  keep_compiled(config)
  with StopRequests() as stop:
    return _train(config, workdir, stop)


def _train(config: ml_collections.ConfigDict, workdir: pathlib.Path, stop: StopRequests) -> dict[str, float]:
  checkpoint_folder(workdir)  # its name is refused before the data is read
  setup, mesh = prepare(config, workdir), data_mesh()
  iterator = read_ahead(setup.batches, setup.num_steps)
  with Checkpoints(workdir) as checkpoints:
    state = checkpoints.restore_latest(state_shapes(setup, mesh), iterator)
    if state is None:  # only now: a restart neither draws parameters nor reads pretrained ones
      state = first_state(setup, mesh)
    with (
      _progress(setup, workdir, int(state.step)) as progress,
      Neighbours(setup, workdir, progress) as neighbours,
    ):
      progress.say(summary(setup, state))
      for warning in warnings_of(setup.train):
        progress.say(f'WARNING: {warning}')
      _run_steps(setup, mesh, state, iterator, checkpoints, progress, neighbours, stop)
      progress.end_bar()
      step, metrics = evaluate_best(workdir)
      progress.evaluation(step, config.evaluation.test_split, metrics)
      return metrics


def keep_compiled(config: ml_collections.ConfigDict) -> None:
  """XLA's programs stay in the user's cache: the second start of the same training compiles nothing."""
  folder = cache_folder(config.data.cache)
  if folder and not jax.config.jax_compilation_cache_dir:  # the user's own setting wins
    jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))


def _run_steps(
  setup: Setup,
  mesh: Mesh,
  state: TrainState,
  iterator,
  checkpoints: Checkpoints,
  progress: Progress,
  neighbours: Neighbours,
  stop: StopRequests,
):
  """From the state's step to the last one, or to where it is asked to stop."""
  config, first_step = setup.run.config, int(state.step)
  evaluator = Evaluator(setup.run, mesh)
  update = CompiledSteps(setup, mesh, progress)
  guard = Guard(
    config.training.max_skipped_steps, checkpoints.describe_newest, say=progress.say, image_ids=setup.train.ids
  )

  def end_if_asked(step: int) -> None:
    """Between two steps."""
    if not stop.after(step):
      return
    if step > first_step:
      guard.settle()
      checkpoints.save(state, iterator, None)
      checkpoints.wait()
    progress.say(f'stopped after step {step} as asked; the same command goes on from there')
    raise Stopped(stop.exit_status)

  if first_step == 0 and config.model.start == 'zero_shot':
    # What training begins with is a candidate, too: a run is never worse than that on the selection split.
    with progress.pause():
      checkpoints.save(state, iterator, _select(evaluator, setup, state, progress))
  evaluate_every = max(round(config.evaluation.every_epochs * setup.batches.sampler.steps_per_epoch), 1)
  for step in range(first_step + 1, setup.num_steps + 1):
    end_if_asked(step - 1)
    neighbours.before_step(step - 1, state, evaluator.encoder)
    batch = next(iterator)
    state, metrics = update(state, split_batch(batch, mesh))
    guard.watch(step, metrics, batch)
    is_last = step == setup.num_steps
    if step % config.training.log_every_steps == 0 or is_last:
      progress.training(step, {name: float(value) for name, value in metrics.items()})
      checkpoints.tidy()
    is_evaluated = step % evaluate_every == 0 or is_last
    if is_evaluated or step % config.training.checkpoint_every_steps == 0:
      with progress.pause():
        guard.settle()
        scores = _select(evaluator, setup, state, progress) if is_evaluated else None
        checkpoints.save(state, iterator, scores)
  checkpoints.wait()
  end_if_asked(setup.num_steps)
  if guard.num_skipped:
    progress.say(f'{guard.num_skipped} of {setup.num_steps} updates were skipped: what was in them was not learnt')


def _select(evaluator: Evaluator, setup: Setup, state: TrainState, progress: Progress) -> dict[str, float]:
  """Evaluates the selection split; its rSum ranks the checkpoint."""
  started, name = time.perf_counter(), setup.selection.name
  scores = evaluator.evaluate(state.variables, setup.selection, protocol='all')
  progress.evaluation(int(state.step), name, scores)
  seconds = time.perf_counter() - started
  progress.say(f'{name} at step {int(state.step)} ({seconds:.1f} s)\n{format_table(scores)}')
  return scores


class CompiledSteps:
  """The jitted step for every phase and every shape of a batch, compiled once, with a word about it."""

  def __init__(self, setup: Setup, mesh: Mesh, progress: Progress):
    self._setup, self._mesh, self._progress = setup, mesh, progress
    self._compiled = {}
    self._seed = np.uint32(setup.run.config.training.seed)
    self._step = None

  def __call__(self, state: TrainState, batch) -> tuple[TrainState, dict]:
    # The step is counted here, not read from the device: that would wait for the update before.
    self._step = int(state.step) if self._step is None else self._step + 1
    phase, active = self._setup.phase(self._step), self._setup.optimizer.active(self._step)
    if self._step and phase != self._setup.phase(self._step - 1):
      self._progress.phase(self._step, phase)
    key = (phase, active, *(leaf.shape for leaf in jax.tree.leaves(batch)))
    if key not in self._compiled:
      with self._progress.pause():
        self._compiled[key] = self._compile(phase, active, state, batch)
    return self._compiled[key](state, batch, self._seed)

  def _compile(self, phase: Hashable, active: tuple[str, ...], state: TrainState, batch):
    started, run = time.perf_counter(), self._setup.run
    options = dict(method=run.method, optimizer=self._setup.optimizer, phase=phase, active=active)
    name, (rows, words), packing = '' if phase is None else f' {phase!r}', batch.texts.tokens.shape, batch.texts.packing
    longest = '' if packing is None else f' (captions up to {packing.index.shape[-1]})'
    what = f'the step{name} for {rows} rows of {words} words{longest}'
    self._progress.say(f'compiling {what} ...')
    compiled = jit_train_step(self._mesh, **options).lower(state, batch, self._seed).compile()
    self._progress.say(f'compiled {what}, {time.perf_counter() - started:.1f} s')
    return compiled


def _progress(setup: Setup, workdir: pathlib.Path, first_step: int) -> Progress:
  return Progress(
    workdir,
    first_step=first_step,
    num_steps=setup.num_steps,
    steps_per_epoch=setup.batches.sampler.steps_per_epoch,
    batch_size=setup.run.config.training.batch_size,
  )


def summary(setup: Setup, state: TrainState) -> str:
  """What is about to be trained, on what."""
  config, device = setup.run.config, jax.devices()[0]
  parts = ', '.join(f'{part} {count:,}' for part, count in count_parameters(state.params).items())
  return '\n'.join(
    [
      f'hrem_jax on {jax.device_count()} {device.platform} device(s) ({device.device_kind}), '
      f'{jax.process_count()} process(es)',
      f'parameters of {config.method}: {parts}',
      f'data: {setup.batches.describe()}; selection on {setup.selection.name}',
      f'steps {int(state.step)} to {setup.num_steps}: {config.training.num_epochs} epochs of '
      f'{setup.batches.sampler.steps_per_epoch}, batch {config.training.batch_size}{_later_phases(setup)}',
    ]
  )


def _later_phases(setup: Setup) -> str:
  """When the step changes, for a person."""
  phases = [setup.phase(step) for step in range(setup.num_steps)]
  changes = [step for step in range(1, len(phases)) if phases[step] != phases[step - 1]]
  return ''.join(f', {phases[step]!r} from step {step}' for step in changes)
