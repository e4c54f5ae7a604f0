"""Pictures that come with a request: read within bounds, kept in memory only."""

import io

import anyio
from fastapi import HTTPException, Request
from PIL import Image
from starlette.requests import ClientDisconnect

from hrem_jax.extraction.decoding import TooManyPixels, UnreadablePicture, decode
from hrem_jax.serving.limits import (
  MAX_UPLOAD,
  MAX_UPLOAD_PIXELS,
  MAX_UPLOAD_SECONDS,
  MIN_UPLOAD_SPEED,
  UPLOAD_GRACE,
)

# The body is the file. No forms: a form of another site may be sent here without asking, and its parser writes to disk.
TYPES = 'image/*, application/octet-stream'
# What browsers and telephones send. Decoders of TIFF, JPEG 2000 and AVIF are more code than strangers should reach.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP')


async def read_upload(request: Request) -> bytes:
  """The body of a request.

  Raises:
    HTTPException: It says that it is something else than a picture (415), is too large (413), takes too long (408) or
      breaks off (400).
  """
  kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if not kind.startswith('image/') and kind != 'application/octet-stream':
    raise HTTPException(415, f'Content-Type is {kind[:80]!r}, expected a picture as the body, of a type of {TYPES}')
  declared = request.headers.get('content-length', '')
  if declared.isdecimal() and int(declared[:20]) > MAX_UPLOAD:
    raise HTTPException(413, _too_large())
  try:
    with anyio.fail_after(MAX_UPLOAD_SECONDS):
      return await _read_body(request)
  except TimeoutError as error:
    speed = f'{MIN_UPLOAD_SPEED:,} bytes a second'
    raise HTTPException(
      408, f'the upload took more than {MAX_UPLOAD_SECONDS:.0f} seconds, or less than {speed}'
    ) from error
  except ClientDisconnect as error:
    raise HTTPException(400, 'the upload broke off') from error


async def _read_body(request: Request) -> bytes:
  """No more of it than is allowed, whatever its header says, and no slower."""
  body, started, chunks = bytearray(), anyio.current_time(), aiter(request.stream())
  while True:
    # When as much as is here must have come: who sends a byte a second is not waited for until the last moment.
    due = started + UPLOAD_GRACE + len(body) / MIN_UPLOAD_SPEED
    with anyio.fail_after(due - anyio.current_time()):
      chunk = await anext(chunks, None)
    if chunk is None:
      return bytes(body)
    if len(body) + len(chunk) > MAX_UPLOAD:
      raise HTTPException(413, _too_large())
    body += chunk


def _too_large() -> str:
  return f'the upload has more than {MAX_UPLOAD:,} bytes'


def decode_upload(content: bytes) -> Image.Image:
  """The picture in an upload as RGB, upright.

  Raises:
    HTTPException: It is no picture that can be read (415) or one of too many pixels (413).
  """
  try:
    return decode(io.BytesIO(content), max_pixels=MAX_UPLOAD_PIXELS, formats=FORMATS)
  except TooManyPixels as error:
    raise HTTPException(413, f'the picture is too large: {error}') from error
  except UnreadablePicture as error:
    raise HTTPException(415, f'no picture that can be read: {error}') from error
