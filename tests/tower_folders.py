"""The tiny folders of tests/golden/towers (see make_towers.py), and what their programs made of pictures and texts."""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy
from PIL import Image
from small_pictures import random_picture

FOLDERS = pathlib.Path(__file__).parent / 'golden' / 'towers'
NAMES = sorted(path.name for path in FOLDERS.iterdir())
WITH_TEXT = [name for name in NAMES if name.startswith(('clip', 'siglip'))]
GRID, WIDTH = (4, 4), 11  # of patches; tokens of a text
TEXTS = ['A dog  runs.', "The man's RED dog, and a cat!", 'dogs']


def golden_of(name: str) -> dict[str, np.ndarray]:
  with np.load(FOLDERS / name / 'golden.npz') as file:
    return dict(file)


def pictures() -> list[Image.Image]:
  return [random_picture(seed, size) for seed, size in enumerate([(48, 36), (31, 53), (13, 17)])]


def copy_of(name: str, folder: pathlib.Path) -> pathlib.Path:
  """A folder that may be changed."""
  return pathlib.Path(shutil.copytree(FOLDERS / name, folder / name))


def change_json(path: pathlib.Path, change) -> None:
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def change_tensors(folder: pathlib.Path, change) -> None:
  """`change` gives the new tensors by name."""
  path = folder / 'model.safetensors'
  safetensors.numpy.save_file(change(safetensors.numpy.load_file(path)), path)
