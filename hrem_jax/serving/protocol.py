"""HTTP as uvicorn speaks it, with a time limit for the head of a request, of which uvicorn has none."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hrem_jax.serving.limits import MAX_HEADER_SECONDS


class BoundedProtocol(H11Protocol):
  """Closes connections on which no whole head of a request has come for `MAX_HEADER_SECONDS`: at first, or a half one.

  Between two requests uvicorn's own time limit holds until the first byte of the next one.
  """

  _deadline: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:
    super().connection_made(transport)
    self._wait_for_head()

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    if self.conn.their_state is h11.IDLE:
      self._wait_for_head()
    elif self._deadline is not None:
      self._deadline.cancel()
      self._deadline = None

  def connection_lost(self, exc: Exception | None) -> None:
    if self._deadline is not None:
      self._deadline.cancel()
    super().connection_lost(exc)

  def _wait_for_head(self) -> None:
    """Not anew for each byte: that could be put off for ever."""
    if self._deadline is None:
      self._deadline = self.loop.call_later(MAX_HEADER_SECONDS, self._give_up)

  def _give_up(self) -> None:
    self._deadline = None
    if not self.transport.is_closing():
      self.transport.close()
