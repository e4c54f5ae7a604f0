"""Runs the application on an address of this machine."""

import contextlib
import socket
from collections.abc import Collection
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp

from hrem_jax.errors import UserError, say
from hrem_jax.serving.protocol import BoundedProtocol

_KEEP_ALIVE = 30  # seconds
_FAREWELL = 10  # seconds for requests under way when it ends


def listen(host: str, port: int) -> socket.socket:
  """A socket bound to the address.

  Raises:
    UserError: There is no such address on this machine, or its port is taken.
  """
  if not 0 <= port < 2**16:  # which the system would take modulo 2**16
    raise UserError(f'--port {port}: expected 0 to {2**16 - 1}')
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with contextlib.ExitStack() as closing:
      bound = closing.enter_context(socket.socket(family, kind, protocol))
      bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      bound.bind(address)
      closing.pop_all()
      return bound
  except (OSError, UnicodeError) as error:
    reason, hint = getattr(error, 'strerror', None) or error, '--port 0 takes a free one'
    raise UserError(f'--host {host} --port {port}: cannot listen there: {reason}; {hint}') from error


def warn_if_public(host: str) -> None:
  """Says what it means to be reachable from elsewhere."""
  if not _is_loopback(host):
    say(
      f'WARNING: --host {host} can be reached from other machines, and whoever reaches it sees all pictures and '
      'captions of the index: there is no password (docs/serve.md tells how to put one before it)'
    )


def is_any_address(host: str) -> bool:
  """Whether the host stands for all addresses of the machine."""
  return host in ('', '0.0.0.0', '::')


def _is_loopback(host: str) -> bool:
  try:
    return ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def names_of(host: str, allowed: Collection[str]) -> list[str]:
  """The names by which a server on this host is called."""
  machine = [socket.gethostname()] if is_any_address(host) else []
  return ['localhost', '127.0.0.1', '::1', host, *machine, *allowed]


def address_of(bound: socket.socket) -> str:
  """The address to type into a browser."""
  host, port = bound.getsockname()[:2]
  shown = 'localhost' if is_any_address(host) else f'[{host}]' if ':' in host else host
  return f'http://{shown}:{port}'


def make_server(application: ASGIApp) -> uvicorn.Server:
  configuration = uvicorn.Config(
    application,
    http=BoundedProtocol,
    log_config=None,
    access_log=False,  # it would write down what people look for
    server_header=False,
    proxy_headers=False,  # nothing here depends on who asks
    timeout_keep_alive=_KEEP_ALIVE,
    timeout_graceful_shutdown=_FAREWELL,
    ws='none',
  )
  return uvicorn.Server(configuration)


def serve(application: ASGIApp, bound: socket.socket) -> None:
  """Answers until Ctrl-C or SIGTERM; requests under way get their answer."""
  with contextlib.suppress(KeyboardInterrupt):  # raised once more when all is over
    make_server(application).run(sockets=[bound])
