"""A few searches at once, a few more that wait, and no more; nobody holds a place while bytes are on their way."""

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio
import anyio.to_thread

from hrem_jax.serving.limits import AT_ONCE, WAITING

Answer = TypeVar('Answer')


class Busy(Exception):
  """All places are taken."""


class Places:
  """Room for a few at once, in all and of one address."""

  def __init__(self, most: int, most_of_one: int):
    self._free, self._most_of_one = most, most_of_one
    self._taken: collections.Counter[str] = collections.Counter()

  @contextlib.contextmanager
  def of(self, address: str) -> Iterator[None]:
    """Raises Busy where there is none left. Called in the event loop only, which makes the counting safe."""
    if not self._free or self._taken[address] >= self._most_of_one:
      raise Busy
    self._free -= 1
    self._taken[address] += 1
    try:
      yield
    finally:
      self._free += 1
      self._taken[address] -= 1
      if not self._taken[address]:
        del self._taken[address]


class Searches:
  """Places for searches: a request takes one when all that it needs is here, and keeps it until it has its answer.

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
