"""A gallery of scenes, files around it that must never be served, and ids that point at them."""

import pathlib
from typing import NamedTuple

import small_pictures
from scene_searcher import Entry, SceneSearcher, make_gallery
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from hrem_jax.serving.application import create_application

SECRET = b'what nobody may read'
NAMES = ('two  spaces', 'ümlaut-日本', 'a/b', 'a%2Fb', '50%', 'x?y=1#z', '<b>&"\'', 'q\\w', '.hidden', 'emoji 🐧')


class World(NamedTuple):
  folder: pathlib.Path
  gallery: pathlib.Path
  searcher: SceneSearcher
  application: ASGIApp


def make(folder: pathlib.Path, count: int = 12, **options) -> World:
  gallery = folder / 'gallery'
  entries = make_gallery(gallery, count)
  first = next(iter(entries))
  entries |= {name: Entry((f'called {name}',), entries[first].picture) for name in NAMES}
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


def check(response) -> None:
  """What holds for every answer."""
  assert response.status_code < 500, response.text
  assert response.headers['x-content-type-options'] == 'nosniff'
  assert "default-src 'self'" in response.headers['content-security-policy']
  assert 'access-control-allow-origin' not in response.headers
  assert SECRET not in response.content
  if response.status_code >= 400 and response.request.method != 'HEAD':
    body = response.json()
    assert list(body) == ['error']
    assert body['error']
    assert '\n' not in body['error']
    assert 'Traceback' not in body['error']
    assert '/somewhere' not in body['error']
