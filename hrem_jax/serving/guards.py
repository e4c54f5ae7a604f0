"""What holds for every request and every answer: whose it may be, and what browsers may do with it."""

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
  'Content-Security-Policy': (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
  ),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(), geolocation=(), microphone=()',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
_HOST = re.compile(r'(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(:\d{1,5})?', re.IGNORECASE)


class Guards:
  """Refuses requests that other web sites made, and sends the headers of `HEADERS` with every answer.

  Args:
    app: What is guarded.
    hosts: Names by which this server is called. Another name in the Host header is that of a web site that made its
      name point here, to read our answers as its own.
    is_any_address: Addresses are names of this server, too. No web site can make one point elsewhere.
  """

  def __init__(self, app: ASGIApp, hosts: Collection[str], *, is_any_address: bool = False):
    self._app = app
    self._hosts = {host.lower().strip('[]') for host in hosts}
    self._is_any_address = is_any_address

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message: Message) -> None:
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in HEADERS.items():
          headers[name] = value
        headers.setdefault('Cache-Control', 'no-store')
      await send(message)

    refusal = self._refusal(scope)
    if scope['method'] == 'HEAD':  # whatever has a GET; the server leaves the body out
      scope = {**scope, 'method': 'GET'}
    await (refusal or self._app)(scope, receive, send_with_headers)

  def _refusal(self, scope: Scope) -> JSONResponse | None:
    headers = Headers(scope=scope)
    if not self._is_ours(headers.get('host', '')):
      return JSONResponse({'error': 'the Host header names another server (--allow-host adds a name)'}, 400)
    # Old browsers do not send it; to them the answers are unreadable all the same.
    if headers.get('sec-fetch-site') in ('cross-site', 'same-site') and scope['path'].startswith(
      ('/api/', '/pictures/')
    ):
      return JSONResponse({'error': 'requests of other web sites are not answered'}, 403)
    return None

  def _is_ours(self, header: str) -> bool:
    if not (match := _HOST.fullmatch(header)):
      return False
    name = match[1].lower().strip('[]')
    return name in self._hosts or (self._is_any_address and _is_address(name))


def _is_address(name: str) -> bool:
  try:
    ip_address(name)
  except ValueError:
    return False
  return True
