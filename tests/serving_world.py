"""A gallery of scenes, files around it that must never be served, and ids that point at them."""

import contextlib
import http.client
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import anyio
import small_pictures
from scene_searcher import Entry, SceneSearcher, make_gallery
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from hrem_jax.serving import server
from hrem_jax.serving.application import create_application

SECRET = b'what nobody may read'
NAMES = ('two  spaces', 'ümlaut-日本', 'a/b', '50%', 'x?y=1#z', '<b>&"\'', 'q\\w', '.hidden', 'emoji 🐧')
PERCENT = ('a%2Fb', '%2e%2e', '%00')  # names that look encoded


class World(NamedTuple):
  folder: pathlib.Path
  gallery: pathlib.Path
  searcher: SceneSearcher
  application: ASGIApp


def make(folder: pathlib.Path, count: int = 12, **options) -> World:
  gallery = folder / 'gallery'
  entries = make_gallery(gallery, count)
  first = next(iter(entries))
  entries |= {name: Entry((f'called {name}',), entries[first].picture) for name in (*NAMES, *PERCENT)}
  searcher = SceneSearcher(entries | _traps(folder, gallery))
  application = create_application(searcher, lambda: [gallery], model='scenes', **options)
  return World(folder, gallery, searcher, application)


def _traps(folder: pathlib.Path, gallery: pathlib.Path) -> dict[str, Entry]:
  """Pictures of the index whose files are none that may be shown."""
  outside = folder / 'outside.png'
  small_pictures.random_picture(3).save(outside, pnginfo=None)
  (folder / 'secret.txt').write_bytes(SECRET)
  (gallery / 'secret.jpg').write_bytes(SECRET)
  (gallery / 'page.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
  small_pictures.random_picture(3).save(gallery / 'scan.tiff')
  (gallery / 'link.png').symlink_to(outside)
  (gallery / 'circle.png').symlink_to(gallery / 'circle.png')
  (gallery / 'folder.png').mkdir()
  (gallery / 'way').symlink_to(folder)
  paths = {
    'trap outside': outside,
    'trap above': gallery / '..' / 'outside.png',
    'trap link': gallery / 'link.png',
    'trap linked folder': gallery / 'way' / 'outside.png',
    'trap circle': gallery / 'circle.png',
    'trap text': gallery / 'secret.jpg',
    'trap svg': gallery / 'page.svg',
    'trap tiff': gallery / 'scan.tiff',
    'trap folder': gallery / 'folder.png',
    'trap gone': gallery / 'gone.png',
    'trap NUL': gallery / 'nul\0.png',
    'trap long': gallery / ('x' * 5000),
    'trap none': None,
  }
  return {name: Entry((), path) for name, path in paths.items()}


def client_of(world: World, **options) -> TestClient:
  return TestClient(world.application, base_url='http://localhost:8000', raise_server_exceptions=False, **options)


@contextlib.contextmanager
def running(application: ASGIApp) -> Iterator[int]:
  """A server in a thread; its port."""
  with server.listen('127.0.0.1', 0) as bound:
    running = server.make_server(application)
    thread = threading.Thread(target=running.run, kwargs={'sockets': [bound]})
    thread.start()
    try:
      while not running.started and thread.is_alive():
        time.sleep(0.01)
      yield bound.getsockname()[1]
    finally:
      running.should_exit = True
      thread.join()


def ask(port: int, address: str) -> tuple[int, str, bytes]:
  """Status, media type and content of an address that is sent as it stands here."""
  with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=20)) as connection:
    connection.putrequest('GET', address, skip_host=True)
    connection.putheader('Host', 'localhost')
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.headers.get('content-type', ''), response.read()


class Answer(NamedTuple):
  method: str
  status_code: int
  headers: dict[str, str]
  content: bytes

  @property
  def text(self) -> str:
    return self.content.decode()


def send(application: ASGIApp, method: str, path: str, query: str = '', body: bytes = b'', kind: str = '') -> Answer:
  """Calls the application as a server would, with a path that no client would send."""
  sent = []
  headers = [(b'host', b'localhost'), (b'content-type', kind.encode('latin-1'))]
  scope = {'type': 'http', 'method': method, 'path': path, 'raw_path': b'', 'query_string': query.encode()}
  scope |= {'headers': headers, 'scheme': 'http', 'server': ('localhost', 80), 'http_version': '1.1', 'root_path': ''}

  async def receive():
    return {'type': 'http.request', 'body': body}

  async def collect(message):
    sent.append(message)

  anyio.run(application, scope, receive, collect)
  names = {name.decode('latin-1').lower(): value.decode('latin-1') for name, value in sent[0]['headers']}
  return Answer(method, sent[0]['status'], names, b''.join(message.get('body', b'') for message in sent[1:]))


def check(response) -> None:
  """What holds for every answer."""
  assert response.status_code < 500, response.text
  assert response.headers['x-content-type-options'] == 'nosniff'
  assert "default-src 'self'" in response.headers['content-security-policy']
  assert 'access-control-allow-origin' not in response.headers
  assert SECRET not in response.content
  if response.status_code >= 400:
    body = json.loads(response.text)
    assert list(body) == ['error']
    assert body['error']
    assert '\n' not in body['error']
    assert 'Traceback' not in body['error']
    assert '/somewhere' not in body['error']
