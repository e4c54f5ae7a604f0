"""Nothing but the pictures of the gallery is ever served, whatever an id or a link says."""

import os
import socket

import pytest
import serving_world
from serving_world import ask

from hrem_jax.serving.gallery import Gallery

TRAPS = [
  'outside', 'above', 'link', 'linked folder', 'circle', 'text', 'svg', 'tiff', 'folder', 'gone', 'NUL', 'long', 'none',
]  # fmt: skip


@pytest.mark.parametrize('trap', TRAPS)
def test_what_the_index_points_at_is_shown_only_if_it_may_be(client, trap):
  response = client.get(f'/pictures/trap {trap}')
  serving_world.check(response)
  assert response.status_code == 404
  assert response.json()['error'] == f"no file to show of the picture 'trap {trap}'"


def test_all_traps_are_tried(world):
  assert {f'trap {trap}' for trap in TRAPS} == {name for name in world.searcher.entries if name.startswith('trap')}


def test_a_link_within_the_gallery_and_several_folders(world, tmp_path):
  path = world.searcher.item('test_0001a').picture
  (world.gallery / 'inner.png').symlink_to(path)
  gallery = Gallery(lambda: [tmp_path, world.gallery])
  assert gallery.open(world.gallery / 'inner.png') == (path.read_bytes(), 'image/png')
  (tmp_path / 'x.jpg').write_bytes(path.read_bytes())
  assert gallery.open(tmp_path / 'x.jpg').kind == 'image/png'  # by what it is, not by what it is called
  assert Gallery(lambda: [tmp_path]).open(path) is None
  assert Gallery(lambda: []).open(path) is None


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')
  assert Gallery(lambda: [tmp_path]).open(tmp_path / 'pipe.png') is None


# Sent as they stand here: clients tidy addresses up before they send them.
ADDRESSES = [
  *(
    f'/{room}/{path}'
    for room in ('pictures', 'api/pictures', 'page')
    for path in (
      '../secret.txt', '../../secret.txt', '..%2Fsecret.txt', '%2e%2e/secret.txt', '%2e%2e%2fsecret.txt',
      '..%5Csecret.txt', '%252e%252e%252fsecret.txt', '....//secret.txt', './../secret.txt', '.', '..', '%2e%2e',
      '/etc/passwd', '%2Fetc%2Fpasswd', '//etc/passwd', 'file:///etc/passwd', 'C:%5CWindows', '~/.ssh/id_rsa',
      'test_0001a%00.png', '%00', '%00/etc/passwd', 'secret.jpg', 'gallery/secret.jpg', '%c0%ae%c0%ae/secret.txt',
      '%ff%fe', '%ED%A0%80', '%E2%80%AE', 'test_0001a/../trap%20outside', 'test_0001a/..%2f..%2foutside.png',
      'x' * 3000, '%2e%2e%2f' * 300 + 'etc/passwd', '日'.encode().hex('%').join(['%', '']), '', '/',
    )
  ),
  '/..', '/../../../../etc/passwd', '//', '//etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/.git/config', '/style.css',
  '/page/../application.py', '/page/%2e%2e/application.py', '/page/index.html/..', '/application.py', '/openapi.json/',
]  # fmt: skip


def test_no_address_leads_out_of_the_gallery(world, port):
  pictures = {path.read_bytes() for path in (world.gallery / 'pictures').iterdir()}
  for address in ADDRESSES:
    status, kind, content = ask(port, address)
    assert status in (400, 404, 422), (address, status, content[:200])
    assert kind == 'application/json', address
    assert serving_world.SECRET not in content, address
    assert b'root:' not in content, address
  assert ask(port, '/pictures/test_0001a')[2] in pictures


def test_broken_http_ends_without_harm(port):
  for raw in (b'GET\r\n\r\n', b'\0\0\0', b'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n'):
    with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
      connection.sendall(raw)
      assert b' 400 ' in connection.recv(4096)
  assert ask(port, '/api/about')[0] == 200
