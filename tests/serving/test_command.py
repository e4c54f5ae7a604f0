"""`python -m hrem_jax serve`: where it listens, what it says, how it ends."""

import builtins
import contextlib
import functools
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import small_index
import small_pictures
from breaking_index import DAMAGE
from starlette.testclient import TestClient

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.search.index import Item, Place, open_index
from hrem_jax.search.searcher import Searcher
from hrem_jax.serving import server
from hrem_jax.serving.application import create_application
from hrem_jax.serving.index import gallery_folders, model_name, warm_up


def test_the_first_searches_are_made_before_anybody_waits(world, monkeypatch):
  asked = []
  monkeypatch.setattr(world.searcher, 'by_text', lambda text, count: asked.append(text))
  monkeypatch.setattr(world.searcher, 'by_picture', lambda picture, count: asked.append(picture.mode))
  warm_up(world.searcher)
  assert asked == [world.searcher.item(world.searcher.ids(0, 1)[0]).captions[0], 'RGB']

  def refuse(query, count):
    raise UserError('no such encoder')

  monkeypatch.setattr(world.searcher, 'by_text', refuse)
  monkeypatch.setattr(world.searcher, 'by_picture', refuse)
  warm_up(world.searcher)


def said(capsys, *arguments: str) -> str:
  with pytest.raises(SystemExit) as end:
    cli.run(['serve', *arguments])
  assert end.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  return line


def test_mistakes(tmp_path, capsys):
  assert 'no index there' in said(capsys, str(tmp_path / 'nothing'), '--port', '0')
  assert '--port 99999: expected 0 to 65535' in said(capsys, str(tmp_path), '--port', '99999')
  assert '--host no.such.host.invalid' in said(capsys, str(tmp_path), '--host', 'no.such.host.invalid')
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = str(taken.getsockname()[1])
    assert f'--port {port}: cannot listen there: Address already in use' in said(capsys, str(tmp_path), '--port', port)


def test_it_says_how_to_install_what_is_missing(tmp_path, capsys, monkeypatch):
  original = builtins.__import__

  def without(name, *arguments):
    if name == 'fastapi':
      raise ImportError('no', name='fastapi')
    return original(name, *arguments)

  monkeypatch.setattr(builtins, '__import__', without)
  assert said(capsys, str(tmp_path)).endswith(
    "serve needs fastapi, which is not installed: pip install 'hrem_jax[serve]'"
  )


@pytest.mark.parametrize(
  ('host', 'is_warned'),
  [
    ('127.0.0.1', False), ('127.0.0.2', False), ('::1', False), ('localhost', False),
    ('0.0.0.0', True), ('::', True), ('192.168.0.7', True), ('pictures.example', True),
  ],
)  # fmt: skip
def test_who_can_be_reached_from_elsewhere_is_warned(capsys, host, is_warned):
  server.warn_if_public(host)
  assert ('WARNING: ' in capsys.readouterr().err) == is_warned


def test_the_address_to_type():
  for host, shown in (('127.0.0.1', '127.0.0.1'), ('0.0.0.0', 'localhost')):
    with server.listen(host, 0) as bound:
      assert server.address_of(bound) == f'http://{shown}:{bound.getsockname()[1]}'
  with pytest.raises(UserError, match='cannot listen'):
    server.listen('203.0.113.1', 0)  # an address of documents, which no machine has


CODE = """
import contextlib
from hrem_jax.serving import server
async def application(scope, receive, send):
  await receive()
  if scope.get('path') == '/break':
    raise RuntimeError('broken inside')
  await send({'type': 'http.response.start', 'status': 200, 'headers': []})
  await send({'type': 'http.response.body', 'body': b'here'})
with server.listen('127.0.0.1', 0) as bound:
  print(server.address_of(bound), flush=True)
  server.serve(application, bound)
print('ended')
"""


@contextlib.contextmanager
def process_of_its_own():
  """A process that serves, and its address."""
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  with subprocess.Popen([sys.executable, '-c', CODE], **pipes) as process:
    address = process.stdout.readline().strip()
    for _ in range(200):
      try:
        assert urllib.request.urlopen(address).read() == b'here'
        break
      except OSError:
        time.sleep(0.05)
    yield process, address


@pytest.mark.parametrize(('sign', 'status', 'last'), [(signal.SIGINT, 0, 'ended\n'), (signal.SIGTERM, -15, '')])
def test_it_ends_quietly(sign, status, last):
  with process_of_its_own() as (process, _):
    process.send_signal(sign)
    out, err = process.communicate(timeout=30)
  assert (process.returncode, out, err) == (status, last, '')


def test_what_breaks_is_printed_where_the_server_runs():
  with process_of_its_own() as (process, address):
    with pytest.raises(urllib.error.HTTPError) as error:
      urllib.request.urlopen(f'{address}/break')
    assert (error.value.code, b'inside' in error.value.read()) == (500, False)
    error.value.close()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
  assert 'RuntimeError: broken inside' in err


class WordEncoder:
  """Knows the axes of an index by name."""

  def texts(self, texts):
    return np.array([[float(str(axis) in text) for axis in range(small_index.SIZE)] for text in texts], np.float32)

  def unknown_words(self, text):
    return [word for word in text.split() if not word.isdecimal()]


def test_a_real_index_is_served_with_its_pictures(tmp_path):
  path, data = tmp_path / 'index', tmp_path / 'data' / 'own_precomp'
  index = open_index(small_index.make_index(path))
  assert gallery_folders(index) == []
  application = create_application(
    Searcher(index, WordEncoder()), functools.partial(gallery_folders, index), model=model_name(index)
  )
  client = TestClient(application, base_url='http://127.0.0.1')
  about = client.get('/api/about').json()
  assert (about['pictures'], about['model']) == (0, 'nowhere')
  assert client.get('/api/pictures').json() == {'pictures': [], 'start': 0, 'total': 0}
  (data / 'pictures').mkdir(parents=True)
  content = small_pictures.as_bytes(small_pictures.random_picture(1))
  for name in ('pictures/a.jpg', 'beside.jpg'):
    (data / name).write_bytes(content)
  items = [
    Item('a', ('a picture',), 'print', str(data), 'pictures/a.jpg'),
    Item('b', (), 'print', str(data), 'beside.jpg'),
    Item('c', (), 'print'),
  ]
  with open_index(path) as writer:  # while it is served
    writer.describe(small_index.about(sources={str(data): Place.of(data, str(path))}))
    writer.add(items, np.eye(small_index.SIZE, dtype=np.float32)[:3, None])
  assert client.get('/api/about').json()['pictures'] == 3
  answer = client.get('/api/search?text=axis 1').json()
  results = answer['results']
  assert answer['unknown'] == ['axis']
  assert [(each['id'], each['score']) for each in results] == [('b', 1), ('a', 0), ('c', 0)]
  words = client.get('/api/search?text=picture&by=words').json()
  assert ([each['id'] for each in words['results']], words['unknown']) == (['a'], [])
  assert client.get('/pictures/a').content == content
  assert client.get('/pictures/b').status_code == 404  # only what is in the folder of the pictures
  assert client.get('/api/pictures/c').json() == {'id': 'c', 'captions': [], 'picture': None}


def served(index):
  return TestClient(
    create_application(Searcher(index, WordEncoder()), lambda: [], model='words'),
    base_url='http://127.0.0.1',
    raise_server_exceptions=False,
  )


@pytest.mark.parametrize('damage', DAMAGE)
def test_an_index_that_breaks_while_it_is_served(tmp_path, damage, capsys):
  """Whoever asks is told that the index is broken, not that there is no such picture, and the server goes on."""
  path = small_index.make_index(tmp_path / 'index', small_index.make_content(['a', 'b']))
  whole, client = path.read_bytes(), served(open_index(path))
  assert client.get('/api/search?text=0').status_code == 200
  breaks, message = DAMAGE[damage]
  breaks(path)
  for address in ('search?text=0', 'pictures', 'pictures/a', 'pictures/nobody', 'pictures/a/nearest', 'about'):
    answer = client.get(f'/api/{address}')
    assert answer.status_code == 503
    assert re.search(message, answer.json()['error'])
    assert str(tmp_path) not in answer.text
  assert str(path) in capsys.readouterr().err
  path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
  path.write_bytes(whole)
  assert client.get('/api/pictures/a').json()['captions'] == ['about a, 0']


def test_a_picture_that_is_forgotten_while_it_is_served(tmp_path):
  path = small_index.make_index(tmp_path / 'index', small_index.make_content(['a', 'b']))
  client = served(open_index(path))
  assert client.get('/api/pictures/a').status_code == 200
  with open_index(path) as index:
    index.delete(['a'])
  assert client.get('/api/pictures/a').status_code == 404
  assert [each['id'] for each in client.get('/api/search?text=0').json()['results']] == ['b']
