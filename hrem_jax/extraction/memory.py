"""How many pixels are unpacked at once: as many as the memory holds, whoever unpacks them."""

import contextlib
import os
import threading
from collections.abc import Iterator

BYTES_PER_PIXEL = 12  # while a picture is unpacked: its own form, RGB, and a copy on the way between them


def pixels_in_memory(share: float = 0.25) -> int:
  """Pixels whose unpacking takes this share of the machine's memory."""
  return int(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') * share) // BYTES_PER_PIXEL


class PixelBudget:
  """Room for so many pixels at once; who needs more than is left waits, who needs more than there is goes alone."""

  def __init__(self, most: int):
    self._most = self._left = most
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def of(self, pixels: int) -> Iterator[None]:
    needed = min(pixels, self._most)
    with self._changed:
      self._changed.wait_for(lambda: self._left >= needed)
      self._left -= needed
    try:
      yield
    finally:
      with self._changed:
        self._left += needed
        self._changed.notify_all()
