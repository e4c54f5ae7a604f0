"""The preprocessing of a Hugging Face folder: `preprocessor_config.json` as `TowerPreprocessing`."""

import pathlib
import re

from PIL import Image

from hrem_jax.data.preprocessing import TowerPreprocessing
from hrem_jax.errors import UserError, shown
from hrem_jax.files import read_json_object
from hrem_jax.ports.json_settings import Settings, is_finite

OPENAI = {'image_mean': [0.48145466, 0.4578275, 0.40821073], 'image_std': [0.26862954, 0.26130258, 0.27577711]}
HALVES = {'image_mean': [0.5, 0.5, 0.5], 'image_std': [0.5, 0.5, 0.5]}
COMMON = {
  'do_resize': True,
  'do_rescale': True,
  'rescale_factor': 1 / 255,
  'do_normalize': True,
  'do_center_crop': False,
}
_CROPPED = {'resample': 3, 'size': {'shortest_edge': 224}, 'do_center_crop': True, 'crop_size': 224, **OPENAI}
# What the published processors take where the file says nothing.
DEFAULTS = {
  'CLIP': COMMON | _CROPPED,
  'Bit': COMMON | _CROPPED,
  'Siglip': COMMON | {'resample': 3, 'size': {'height': 224, 'width': 224}, **HALVES},
  'ViT': COMMON | {'resample': 2, 'size': {'height': 224, 'width': 224}, **HALVES},
}
# Files from the first years do not name their processor.
PROCESSOR_OF = {'clip': 'CLIP', 'siglip': 'Siglip', 'vit': 'ViT', 'dinov2': 'Bit', 'dinov2_with_registers': 'Bit'}
# Of a side before the crop, and of a whole picture: twice what the largest published models look at.
MOST_PIXELS, MOST_PATCHES = 2048, 4096
RESAMPLE = {int(filter_): filter_.name for filter_ in Image.Resampling}


def read_preprocessing(folder: pathlib.Path, model_type: str, patch_size: int) -> TowerPreprocessing:
  """What the folder's image processor does.

  Args:
    folder: Has `preprocessor_config.json`, or `processor_config.json` with a section `image_processor`.
    model_type: A key of PROCESSOR_OF.
    patch_size: Of the tower.

  Raises:
    UserError: There is no such file, or it asks for something that is not known here.
  """
  path, content = _read(folder)
  kind = content.get('image_processor_type', content.get('feature_extractor_type', PROCESSOR_OF[model_type]))
  name = re.sub('(ImageProcessor|FeatureExtractor)(Fast|Pil)?$', '', str(kind))
  if name not in DEFAULTS:
    known = ', '.join(f'{each}ImageProcessor' for each in DEFAULTS)
    raise UserError(f'{path}: image_processor_type is {shown(kind)}, expected one of {known}')
  settings = Settings(path, content, DEFAULTS[name])
  for key in ('do_resize', 'do_rescale', 'do_normalize'):
    settings.require(key, True)
  resize = _size(settings, 'size', square=name in ('ViT', 'Siglip'))
  crop = _size(settings, 'crop_size', square=True) if settings.flag('do_center_crop') else None
  smallest = resize if isinstance(resize, tuple) else (resize, resize)
  if crop and (crop[0] > smallest[0] or crop[1] > smallest[1]):
    raise UserError(f'{path}: crop_size {crop} is larger than size {resize}, expected a crop that adds no border')
  pixels = crop or smallest
  if (pixels[0] // patch_size) * (pixels[1] // patch_size) > MOST_PATCHES:
    raise UserError(
      f'{path}: pictures of {pixels[0]} x {pixels[1]} pixels in patches of {patch_size}, expected at most '
      f'{MOST_PATCHES:,} patches'
    )
  return TowerPreprocessing(
    resize=resize,
    crop=crop,
    patch_size=patch_size,
    resample=settings.choice('resample', RESAMPLE),
    scale=settings.number('rescale_factor'),
    mean=_colours(settings, 'image_mean'),
    deviation=_colours(settings, 'image_std'),
  )


def _read(folder: pathlib.Path) -> tuple[pathlib.Path, dict]:
  path, whole = folder / 'preprocessor_config.json', folder / 'processor_config.json'
  if path.is_file():
    return path, read_json_object(path)
  content = read_json_object(whole).get('image_processor') if whole.is_file() else None
  if not isinstance(content, dict):
    raise UserError(f'{path}: no such file; it says how pictures are resized and normalised for the model')
  return whole, content


def _size(settings: Settings, key: str, *, square: bool) -> int | tuple[int, int]:
  """Height and width, or the shorter side; a bare number is one or the other, as the processor has it."""
  value = settings.get(key)
  if isinstance(value, int):
    value = {'height': value, 'width': value} if square else {'shortest_edge': value}
  inner = Settings(settings.path, value if isinstance(value, dict) else {}, section=key)
  if isinstance(value, dict) and value.keys() == {'shortest_edge'}:
    return inner.integer('shortest_edge', most=MOST_PIXELS)
  if isinstance(value, dict) and value.keys() == {'height', 'width'}:
    return inner.integer('height', most=MOST_PIXELS), inner.integer('width', most=MOST_PIXELS)
  raise settings.wrong(key, 'height and width, or shortest_edge')


def _colours(settings: Settings, key: str) -> tuple[float, float, float]:
  """Three numbers, for red, green and blue."""
  value = settings.get(key)
  is_number = isinstance(value, list) and all(map(is_finite, value))
  if not is_number or len(value) != 3 or (key == 'image_std' and not all(value)):
    raise settings.wrong(key, 'three numbers' + (' that are not 0' if key == 'image_std' else ''))
  return tuple(map(float, value))
