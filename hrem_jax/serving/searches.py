"""A few searches at once, a few more that wait, and no more."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio
import anyio.to_thread

from hrem_jax.serving.limits import AT_ONCE, WAITING

Answer = TypeVar('Answer')


class Busy(Exception):
  """All places are taken."""


class Searches:
  """Places for searches: a request takes one before its upload is read, and keeps it until it has its answer.

  Args:
    at_once: Searches that compute, each in a thread.
    waiting: Searches beside them that wait.
  """

  def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING):
    self._threads = anyio.CapacityLimiter(at_once)
    self._free = at_once + waiting

  @contextlib.contextmanager
  def place(self) -> Iterator[None]:
    """Raises Busy where there is none. Called in the event loop only, which makes the counting safe."""
    if not self._free:
      raise Busy
    self._free -= 1
    try:
      yield
    finally:
      self._free += 1

  async def compute(self, function: Callable[..., Answer], *arguments: object) -> Answer:
    """Calls the function in a thread once one is free. It is waited for even if nobody wants the answer any more."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)
