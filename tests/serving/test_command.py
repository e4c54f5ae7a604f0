"""`python -m hrem_jax serve`: where it listens, what it says, how it ends."""

import builtins
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import small_index

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.serving import server
from hrem_jax.serving.index import gallery_folders, model_name


def test_an_index_tells_where_its_pictures_are(tmp_path):
  folder = small_index.make_index(tmp_path / 'index', small_index.make_content(['a', 'b']))
  assert gallery_folders(folder) == []
  assert model_name(folder) == 'nowhere'


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
  await send({'type': 'http.response.start', 'status': 200, 'headers': []})
  await send({'type': 'http.response.body', 'body': b'here'})
with server.listen('127.0.0.1', 0) as bound:
  print(server.address_of(bound), flush=True)
  server.serve(application, bound)
print('ended')
"""


@pytest.mark.parametrize(('sign', 'status', 'last'), [(signal.SIGINT, 0, 'ended\n'), (signal.SIGTERM, -15, '')])
def test_it_ends_quietly(sign, status, last):
  with subprocess.Popen(
    [sys.executable, '-c', CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    address = process.stdout.readline().strip()
    for _ in range(200):
      try:
        assert urllib.request.urlopen(address).read() == b'here'
        break
      except OSError:
        time.sleep(0.05)
    process.send_signal(sign)
    out, err = process.communicate(timeout=30)
  assert (process.returncode, out, err) == (status, last, '')
