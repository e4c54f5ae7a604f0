"""Uploads are read within bounds, decoded in memory, and refused with a reason."""

import struct
import tempfile
import zlib

import numpy as np
import pytest
import serving_world
import small_pictures
from PIL import Image

from hrem_jax.serving import limits, uploads

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
  'not finite': (
    small_pictures.as_bytes(Image.fromarray(np.full((5, 7), np.nan, np.float32)), 'TIFF'), 415, 'not finite'
  ),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('what', REFUSED)
def test_what_is_no_picture_or_too_large_is_refused(client, what):
  content, status, message = REFUSED[what]
  response = client.post('/api/search', content=content, headers={'Content-Type': 'image/png'})
  serving_world.check(response)
  assert response.status_code == status
  assert message in response.json()['error']


def test_a_body_without_an_end_is_not_read_on(client):
  sent = []

  def endless():
    while True:
      sent.append(2**20)
      assert sum(sent) < 3 * limits.MAX_UPLOAD
      yield bytes(2**20)

  # The test client collects what it sends; the bound is tested on the reader below.
  with pytest.raises(AssertionError):
    client.post('/api/search', content=endless(), headers={'Content-Type': 'image/png'})


class Request:
  """As much of one as the reader looks at."""

  def __init__(self, chunks, **headers):
    self.headers, self._chunks, self.taken = headers, chunks, 0

  async def stream(self):
    for chunk in self._chunks:
      self.taken += len(chunk)
      yield chunk
