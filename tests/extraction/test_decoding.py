"""Any picture file to RGB, and any other file to a reason."""

import io
import pathlib
import struct
import tempfile
import zlib

import hypothesis
import numpy as np
import pytest
import small_pictures
from hypothesis import strategies
from PIL import Image, PngImagePlugin

import hrem_jax
from hrem_jax.extraction.decoding import UnreadablePicture, open_picture
from hrem_jax.extraction.png_texts import without_long_texts

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::PIL.Image.DecompressionBombWarning')


def decoded(tmp_path, content: bytes) -> np.ndarray:
  path = tmp_path / 'picture'
  path.write_bytes(content)
  with open_picture(path) as (picture, digest):
    assert (picture.mode, len(digest)) == ('RGB', 64)
    return np.asarray(picture)


GREY = np.linspace(0, 255, 7 * 5).round().astype(np.uint8).reshape(5, 7)
COLOUR = np.asarray(small_pictures.random_picture(1, (7, 5)))
RED = np.array([255, 0, 0])


def saved(array, kind='PNG', mode=None, **options) -> bytes:
  picture = Image.fromarray(array)
  return small_pictures.as_bytes(picture.convert(mode) if mode else picture, kind, **options)


MODES = {
  'grey': (saved(GREY), GREY),
  'grey of 16 bits': (saved(GREY.astype(np.uint16) * 257), GREY),
  'grey of 16 bits in a TIFF': (saved(GREY.astype(np.uint16) * 257, 'TIFF'), GREY),
  'grey of 32 bits': (saved(GREY.astype(np.int32), 'TIFF'), GREY),
  'floats from 0 to 1': (saved((GREY / 255).astype(np.float32), 'TIFF'), GREY),
  'floats of any range': (saved((GREY * 3.0 - 100).astype(np.float32), 'TIFF'), GREY),
  'black and white': (saved(((GREY > 99) * 255).astype(np.uint8), mode='1'), (GREY > 99) * 255),
  'colour': (saved(COLOUR), COLOUR),
  'bitmap': (saved(COLOUR, 'BMP'), COLOUR),
  'WebP': (saved(COLOUR, 'WEBP', lossless=True), COLOUR),
  'PPM': (saved(COLOUR, 'PPM'), COLOUR),
  'CMYK': (saved(COLOUR, 'TIFF', 'CMYK'), COLOUR),
  'a constant float': (saved(np.full((5, 7), -3, np.float32), 'TIFF'), np.zeros((5, 7))),
}


TEXTS = {
  'compressed': dict(zip=True),
  'many': dict(times=70),
  'a profile of colours': dict(profile=True),
}


@pytest.mark.parametrize('kind', TEXTS)
def test_a_picture_with_more_text_than_pillow_reads(tmp_path, kind):
  about, options = PngImagePlugin.PngInfo(), TEXTS[kind]
  text = 'a prompt ' * (110_000 if kind == 'many' else 120_000)
  for number in range(options.get('times', 1)):
    about.add_text(f'prompt {number}', text, zip=options.get('zip', False))
  about.add_text('short', 'stays')
  more = {'icc_profile': text.encode()} if 'profile' in options else {}
  content = saved(COLOUR, pnginfo=about, **more)
  with pytest.raises(ValueError, match='MAX_TEXT_CHUNK|memory used in text'):
    Image.open(io.BytesIO(content)).load()
  assert (decoded(tmp_path, content) == COLOUR).all()
  with Image.open(without_long_texts(io.BytesIO(content))) as picture:
    picture.load()
    assert picture.text['short'] == 'stays'
  whole = saved(COLOUR)
  assert without_long_texts(io.BytesIO(whole)).read() == whole


def test_pictures_are_opened_in_one_place():
  """`hrem_jax/data/demo/drawing.py` rasterises its own vectors."""
  root = pathlib.Path(hrem_jax.__file__).parent
  found = {path.relative_to(root).as_posix() for path in root.rglob('*.py') if 'Image.open(' in path.read_text('utf-8')}
  assert found == {'extraction/decoding.py', 'data/demo/drawing.py'}


@pytest.mark.parametrize('mode', MODES)
def test_modes(tmp_path, mode):
  content, expected = MODES[mode]
  expected = np.broadcast_to(expected[..., None], (5, 7, 3)) if expected.ndim == 2 else expected
  found = decoded(tmp_path, content)
  assert found.shape == (5, 7, 3)
  assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_jpeg_in_cmyk_keeps_its_colours(tmp_path):
  picture = small_pictures.random_picture(2, (64, 48))
  found = decoded(tmp_path, small_pictures.as_bytes(picture.convert('CMYK'), quality=95))
  assert np.abs(found.astype(int) - np.asarray(picture)).mean() < 6


def test_what_is_transparent_is_white(tmp_path):
  alpha = np.zeros((5, 7, 4), np.uint8)
  alpha[..., 0], alpha[:2, :, 3], alpha[2, :, 3] = 255, 255, 128
  found = decoded(tmp_path, saved(alpha))
  assert (found[:2] == RED).all()
  assert np.abs(found[2].astype(int) - [255, 127, 127]).max() <= 1
  assert (found[3:] == 255).all()
  palette = Image.fromarray(np.array([[0, 1, 1], [1, 0, 0]], np.uint8)).convert('P')
  palette.putpalette([255, 0, 0, 0, 0, 255])
  found = decoded(tmp_path, small_pictures.as_bytes(palette, 'PNG', transparency=1))
  assert (found[[0, 1, 1], [0, 1, 2]] == RED).all()
  assert (found[[0, 0, 1], [1, 2, 0]] == 255).all()
  grey = np.array([[[9, 255], [9, 0]]], np.uint8)
  assert decoded(tmp_path, saved(grey)).tolist() == [[[9] * 3, [255] * 3]]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_stand_upright_whatever_the_camera_did(tmp_path, orientation):
  upright = np.zeros((30, 40, 3), np.uint8)
  upright[:15, :20], upright[15:, 20:] = (250, 10, 10), (10, 10, 250)
  back = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, 3),
  }  # fmt: skip
  stored = Image.fromarray(np.ascontiguousarray(back[orientation](upright)))
  exif = Image.Exif()
  exif[0x0112] = orientation
  found = decoded(tmp_path, small_pictures.as_bytes(stored, quality=95, exif=exif))
  assert found.shape == upright.shape
  assert np.abs(found.astype(int) - upright)[2:12, 2:17].max() < 30
  assert np.abs(found.astype(int) - upright)[17:, 23:].max() < 30


def test_a_damaged_exif_block_costs_nothing(tmp_path):
  content = small_pictures.as_bytes(small_pictures.random_picture(4), exif=b'Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff')
  assert decoded(tmp_path, content).shape == (36, 48, 3)


def png_header(width: int, height: int) -> bytes:
  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
  return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'\0' * 1000)) + chunk(b'IEND', b'')


JPEG = small_pictures.as_bytes(small_pictures.random_picture(5))
NO_PICTURES = {
  'gone': (None, r'^no such file$'),
  'empty': (b'', r'^empty$'),
  'text': (b'no picture at all', r'^not one of JPEG, .*, or damaged$'),
  'cut off': (JPEG[:-99], r'^image file is truncated'),
  'only a header': (JPEG[:300], r'^Truncated File Read$'),
  'PostScript, which Pillow would run': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', r'^not one of JPEG'),
  'a bomb': (png_header(60_000, 60_000), r'pixels.*(exceeds limit|more than)'),
  'nearly a bomb': (png_header(20_000, 8_000), r'.'),
  'a line': (png_header(10_000, 2), r'^10000 x 2 pixels, one side more than 100 times the other$'),
  'not finite': (saved(np.full((5, 7), np.nan, np.float32), 'TIFF'), r'^holds values that are not finite$'),
}


@pytest.mark.parametrize('kind', NO_PICTURES)
def test_what_cannot_be_read_says_why(tmp_path, kind):
  content, message = NO_PICTURES[kind]
  path = tmp_path / 'x.jpg'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UnreadablePicture, match=message) as error, open_picture(path):
    pass
  assert '\n' not in str(error.value)
  assert str(tmp_path) not in str(error.value)


def test_a_folder_is_no_picture(tmp_path):
  with pytest.raises(UnreadablePicture, match='^a folder$'), open_picture(tmp_path):
    pass


KINDS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'PPM')
WHOLE = {kind: small_pictures.as_bytes(small_pictures.random_picture(6, (20, 15)), kind) for kind in KINDS}


@hypothesis.given(
  strategies.sampled_from(KINDS),
  strategies.lists(
    strategies.tuples(strategies.floats(0, 1, exclude_max=True), strategies.integers(0, 255)), max_size=6
  ),
  strategies.floats(0.01, 1),
)
@hypothesis.settings(max_examples=400, deadline=None, derandomize=True)
def test_damaged_files_are_read_or_refused(kind, changes, kept):
  content = bytearray(WHOLE[kind])
  for place, value in changes:
    content[int(place * len(content))] = value
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'x'
    path.write_bytes(content[: max(1, int(kept * len(content)))])
    reason = 'RGB'
    try:
      with open_picture(path) as (picture, _):
        reason = picture.mode
    except UnreadablePicture as error:
      reason = f'{error}, not RGB'
    assert reason == 'RGB' or (len(reason) > len(', not RGB') and '\n' not in reason)


def test_whole_files_of_all_kinds_are_read():
  for kind in KINDS:
    assert Image.open(io.BytesIO(WHOLE[kind])).size == (20, 15)
