"""Asked to stop: SIGTERM and the first Ctrl-C end a training between two steps, with everything saved."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h, after SIGTERM: the same command again goes on
EXIT_INTERRUPTED = 130  # after Ctrl-C, as shells have it: a loop around the command ends too


class Stopped(SystemExit):
  """A training that was asked to stop has saved and ends; `code` is the exit status."""


class StopRequests:
  """While its context is open, signals only set a flag, which the loop looks at between two steps.

  With several processes JAX's preemption service takes SIGTERM and makes all stop after the same step; Ctrl-C is then
  left alone: nothing could make them agree. Off the main thread, where signals cannot be handled, nothing is installed.
  """

  def __init__(self):
    self._signal: int | None = None
    self._previous = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
      self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *error):
    for number, handler in self._previous.items():
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def _note(self, number: int, _frame) -> None:
    if number == signal.SIGINT:
      if self._signal == signal.SIGINT:
        raise KeyboardInterrupt
      # Not print: the signal may have come in the middle of one.
      os.write(2, b'\nstopping after the running step, which is saved; once more to stop at once\n')
    self._signal = number

  def after(self, step: int) -> bool:
    """Whether to stop after `step`; with several processes to be called by all, for every step in turn."""
    if jax.process_count() > 1:
      return jax.config.jax_enable_preemption_service and multihost_utils.reached_preemption_sync_point(step)
    return self._signal is not None

  @property
  def exit_status(self) -> int:
    return EXIT_INTERRUPTED if self._signal == signal.SIGINT else EXIT_PREEMPTED
