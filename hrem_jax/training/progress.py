"""What a person sees while it trains, and what stays in the workdir: bar or lines, JSON lines, TensorBoard."""

import contextlib
import datetime
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import jax
import tensorboardX
import tqdm

from hrem_jax.files import to_json, write_text

METRICS_FILE = 'metrics.jsonl'


class Progress:
  """Reports of one start of a training; on processes other than 0 it does nothing.

  Args:
    workdir: Gets `metrics.jsonl`, one object per report, and `tensorboard/`.
    first_step, num_steps: From where to where this start goes. Reports of later steps, which a run that was killed left
      behind, are taken out: those steps are done again.
    steps_per_epoch, batch_size: For epochs and rates.
  """

  def __init__(self, workdir: pathlib.Path, *, first_step: int, num_steps: int, steps_per_epoch: int, batch_size: int):
    self._is_first_process = jax.process_index() == 0
    self._steps_per_epoch, self._batch_size, self._num_steps = steps_per_epoch, batch_size, num_steps
    self._last_step, self._last_time = first_step, time.perf_counter()
    self._bar = self._board = None
    if not self._is_first_process:
      return
    self._path = workdir / METRICS_FILE
    self._keep(lambda report: report['step'] <= first_step)
    self._board = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=first_step + 1)
    if sys.stderr.isatty():
      layout = '{n_fmt}/{total_fmt} |{bar:12}| {elapsed}<{remaining} {postfix}'
      self._bar = tqdm.tqdm(total=num_steps, initial=first_step, dynamic_ncols=True, bar_format=layout)

  def __enter__(self):
    return self

  def __exit__(self, *error):
    for writer in (self._bar, self._board):
      if writer is not None:
        writer.close()

  def end_bar(self) -> None:
    """The last step is done; what is said from here on stands below the bar."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None

  def say(self, line: str) -> None:
    """One line for a person, above the bar where there is one."""
    if not self._is_first_process:
      return
    if self._bar is not None:
      self._bar.write(line, file=sys.stderr)
    else:
      print(f'{datetime.datetime.now():%H:%M:%S} {line}', file=sys.stderr, flush=True)

  def training(self, step: int, metrics: dict[str, float]) -> None:
    """The metrics of the update that led to `step`, and the rate since the last report."""
    now = time.perf_counter()
    seconds_per_step = (now - self._last_time) / max(step - self._last_step, 1)
    self._last_step, self._last_time = step, now
    metrics = {**metrics, 'examples_per_second': self._batch_size / seconds_per_step}
    self._write('train', step, metrics)
    left = datetime.timedelta(seconds=round((self._num_steps - step) * seconds_per_step))
    terms = ' '.join(f'{name.removeprefix("loss/")} {value:.4g}' for name, value in metrics.items() if '/' in name)
    line = (
      f'epoch {step / self._steps_per_epoch:.2f} loss {metrics["loss"]:.4g} ({terms}) '
      f'rate {metrics["learning_rate"]:.3g} {metrics["examples_per_second"]:.1f} examples/s'
    )
    if self._bar is not None:
      self._bar.set_postfix_str(line, refresh=False)
      self._bar.update(step - self._bar.n)
      self._bar.refresh()
    else:
      self.say(f'step {step}/{self._num_steps} {line}, {left} left')

  def phase(self, step: int, name: str) -> None:
    """From the update after `step` updates on, the step is another one."""
    self._append('phase', step, {'phase': name})

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """What happens inside (an evaluation, a compilation) does not count in the rate."""
    started = time.perf_counter()
    yield
    self._last_time += time.perf_counter() - started

  def evaluation(self, step: int, split: str, metrics: dict[str, float]) -> None:
    """Metrics of a whole split; they take the place of earlier ones of the same checkpoint."""
    if self._is_first_process:
      self._keep(lambda report: (report['kind'], report['step']) != (split, step))
    self._write(split, step, metrics)

  def _write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
    if not self._is_first_process:
      return
    self._append(kind, step, metrics)
    try:
      for name, value in metrics.items():
        self._board.add_scalar(f'{kind}/{name}', value, step)
      self._board.flush()
    except OSError as error:
      raise OSError(error.errno, f'cannot be written: {error.strerror}', str(self._path.parent)) from error

  def _append(self, kind: str, step: int, values: dict) -> None:
    """A line of the file."""
    if not self._is_first_process:
      return
    record = {'kind': kind, 'step': step, 'epoch': round(step / self._steps_per_epoch, 4), **values}
    try:
      with self._path.open('a', encoding='utf-8') as file:
        file.write(to_json(record, indent=None))
    except OSError as error:
      raise OSError(error.errno, f'cannot be written: {error.strerror}', str(self._path.parent)) from error

  def _keep(self, is_kept: Callable[[dict], bool]) -> None:
    """Rewrites the file, if something is to be taken out of it: at once or not at all."""
    lines = self._path.read_text('utf-8', errors='replace').splitlines() if self._path.is_file() else []
    kept = [line for line in lines if (report := _report(line)) and is_kept(report)]
    if kept != lines:
      write_text(self._path, ''.join(f'{line}\n' for line in kept))


def _report(line: str) -> dict | None:
  """None for the last line of a killed run, and for what else is no report; `null` is NaN."""
  try:
    report = {key: math.nan if value is None else value for key, value in json.loads(line).items()}
  except (ValueError, AttributeError, RecursionError):
    return None
  if not isinstance(report.get('kind'), str) or type(report.get('step')) is not int:
    return None
  words = {'kind', 'phase'}
  return report if all(type(value) in (int, float) for key, value in report.items() if key not in words) else None


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The reports in `metrics.jsonl`, by step; of a step that was reported twice the later one stays."""
  path = workdir / METRICS_FILE
  if not path.is_file():
    return []
  found = filter(None, map(_report, path.read_text('utf-8', errors='replace').splitlines()))
  reports = {(report['kind'], report['step']): report for report in found}
  return sorted(reports.values(), key=lambda report: report['step'])
