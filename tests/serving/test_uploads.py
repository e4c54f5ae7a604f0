"""Uploads are read within bounds, decoded in memory, and refused with a reason."""

import contextlib
import http.client
import select
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator

import pytest
import serving_world
import small_pictures
from PIL import Image

from hrem_jax.serving import limits, protocol, uploads

JPEG = small_pictures.as_bytes(small_pictures.random_picture(5))


def bomb(width: int, height: int) -> bytes:
  """A PNG that is small on the way and large in memory."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
  return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(10**6))) + chunk(b'IEND', b'')


REFUSED = {
  'empty': (b'', 415, 'empty'),
  'text': (b'hello', 415, 'not one of JPEG'),
  'a page': (b'<html><script>alert(1)</script>', 415, 'not one of JPEG'),
  'SVG': (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, 'not one of JPEG'),
  'PostScript, which Pillow would run': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 415, 'not one of JPEG'),
  'cut off': (JPEG[:-99], 415, 'truncated'),
  'more than 50 million pixels': (bomb(10_000, 5_001), 413, '10000 x 5001 pixels, more than 50,000,000'),
  'a bomb': (bomb(60_000, 60_000), 413, 'pixels'),
  'a line': (bomb(10_000, 2), 415, 'one side more than 100 times the other'),
  'too many bytes': (JPEG + bytes(limits.MAX_UPLOAD), 413, 'more than 20,971,520 bytes'),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('what', REFUSED)
def test_what_is_no_picture_or_too_large_is_refused(client, what):
  content, status, message = REFUSED[what]
  response = client.post('/api/search', content=content, headers={'Content-Type': 'image/png'})
  serving_world.check(response)
  assert response.status_code == status
  assert message in response.json()['error']


HEAD = b'POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n'


@contextlib.contextmanager
def upload(port: int, head: bytes) -> Iterator[socket.socket]:
  with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
    connection.sendall(HEAD + head + b'\r\n')
    yield connection


def test_a_body_without_an_end_is_not_read_on(port):
  sent, answer = 0, b''
  with upload(port, b'Transfer-Encoding: chunked\r\n') as connection, contextlib.suppress(ConnectionError):
    while sent < 10 * limits.MAX_UPLOAD and not select.select([connection], [], [], 0)[0]:
      connection.sendall(b'100000\r\n' + bytes(2**20) + b'\r\n')
      sent += 2**20
    answer = connection.recv(100)
  assert limits.MAX_UPLOAD <= sent < 2 * limits.MAX_UPLOAD
  assert answer[:12] in (b'HTTP/1.1 413', b'')  # which is lost where the connection is closed while we send


def test_what_says_that_it_is_too_large_is_not_read_at_all(port):
  with upload(port, b'Content-Length: 99999999999\r\n') as connection:
    assert connection.recv(100).startswith(b'HTTP/1.1 413')


def test_who_is_slow_is_not_waited_for_without_an_end(port, monkeypatch):
  monkeypatch.setattr(uploads, 'MAX_UPLOAD_SECONDS', 0.2)
  with upload(port, b'Content-Length: 1000\r\n') as connection:
    connection.sendall(bytes(10))
    assert connection.recv(100).startswith(b'HTTP/1.1 408')


def test_who_sends_a_byte_now_and_then_is_not_waited_for(port, monkeypatch):
  """The whole minute is for who is as fast as a slow telephone."""
  monkeypatch.setattr(uploads, 'UPLOAD_GRACE', 0.2)
  with upload(port, b'Content-Length: 1000000\r\n') as connection:
    answer = b''
    for _ in range(100):
      connection.sendall(b'x')
      if select.select([connection], [], [], 0.05)[0]:
        answer = connection.recv(200)
        break
  assert answer.startswith(b'HTTP/1.1 408')


def test_uploads_on_their_way_keep_nobody_from_searching(port):
  """From one address a few are waited for, the next is refused; texts and other uploads have places of their own."""
  with contextlib.ExitStack() as stack:
    for _ in range(limits.ARRIVING_OF_ONE):
      stack.enter_context(upload(port, b'Content-Length: 1000\r\n'))
    connection = stack.enter_context(upload(port, b'Content-Length: 0\r\n'))
    while not (answer := connection.recv(100)).startswith(b'HTTP/1.1 503'):
      assert answer.startswith(b'HTTP/1.1 415')  # the others have not all begun
      connection = stack.enter_context(upload(port, b'Content-Length: 0\r\n'))
    assert serving_world.ask(port, '/api/search?text=dog')[0] == 200


WHOLE = b'GET /api/about HTTP/1.1\r\nHost: localhost\r\n\r\n'


@pytest.mark.parametrize('sent', [[b''], [WHOLE[:-3]], [WHOLE, WHOLE[:9]]])
def test_half_a_head_is_not_waited_for_without_an_end(port, monkeypatch, sent):
  """At first, and behind a whole request on the same connection."""
  monkeypatch.setattr(protocol, 'MAX_HEADER_SECONDS', 0.3)
  with socket.create_connection(('127.0.0.1', port), timeout=20) as connection:
    for part in sent[:-1]:
      connection.sendall(part)
      assert connection.recv(10_000).startswith(b'HTTP/1.1 200')
    connection.sendall(sent[-1])
    while connection.recv(10_000):  # ends when the server closes
      pass


def test_who_asks_again_on_a_connection_is_answered(port, monkeypatch):
  monkeypatch.setattr(protocol, 'MAX_HEADER_SECONDS', 0.3)
  with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=20)) as connection:
    for _ in range(3):
      connection.request('GET', '/api/about', headers={'Host': 'localhost'})
      assert connection.getresponse().read().startswith(b'{')
      time.sleep(0.4)  # longer than a head may take: between two requests there is none


@pytest.mark.parametrize('kind', ['TIFF', 'JPEG2000', 'PPM', 'AVIF'])
def test_formats_that_nobody_takes_pictures_in_are_refused(client, kind):
  if kind not in Image.SAVE:
    pytest.skip(f'this Pillow has no {kind}')
  content = small_pictures.as_bytes(small_pictures.random_picture(5), kind)
  response = client.post('/api/search', content=content, headers={'Content-Type': 'image/png'})
  assert response.status_code == 415
  assert 'not one of JPEG, PNG, WEBP, GIF, BMP' in response.json()['error']


def test_who_goes_away_leaves_nothing_behind(world, port, caplog):
  for _ in range(3):
    with upload(port, b'Content-Length: 1000\r\n') as connection:
      connection.sendall(bytes(10))
  assert serving_world.ask(port, '/api/search?text=dog')[0] == 200
  assert not caplog.records


def test_uploads_are_never_written_to_disk(client, monkeypatch):
  def refuse(*arguments, **options):
    raise AssertionError('a temporary file')

  for name in ('NamedTemporaryFile', 'TemporaryFile', 'SpooledTemporaryFile', 'mkstemp'):
    monkeypatch.setattr(tempfile, name, refuse)
  large = small_pictures.as_bytes(Image.effect_noise((2000, 2000), 90), 'PNG')
  assert len(large) > 2**21
  response = client.post('/api/search', content=large, headers={'Content-Type': 'image/png'})
  assert response.status_code == 200
