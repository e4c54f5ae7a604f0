"""Where a data set comes from: the one door to splits for everything that has a configuration."""

import pathlib

import ml_collections

from hrem_jax.data.precomputed import SUFFIX, Split, data_folder, load_split
from hrem_jax.errors import UserError
from hrem_jax.paths import local_path


def open_split(data: ml_collections.ConfigDict, split: str) -> Split:
  """Opens a split of the section `data` of a configuration; of the features nothing but the shape is read.

  Raises:
    UserError: A file is missing or wrong; the message names it and says what is expected.
  """
  if data.source == 'tfds':
    from hrem_jax.data.tfds_split import load_tfds_split  # half a second to import, and needed by few

    return load_tfds_split(data.directory, data.name, split)
  return load_split(data_folder(data), split)


def precomputed_folders(path: pathlib.Path) -> list[pathlib.Path]:
  """The folders in the precomputed layout that a person means: `path` itself, or every `NAME_precomp` in it.

  Raises:
    UserError: There is none.
  """
  path = local_path(path)
  if not path.is_dir():
    raise UserError(f'{path}: no such folder')
  if path.resolve().name.endswith(SUFFIX) or any(path.glob('*_ims.npy')) or any(path.glob('*_caps.txt')):
    return [path]
  folders = sorted(folder for folder in path.glob(f'*{SUFFIX}') if folder.is_dir())
  if not folders:
    raise UserError(f'{path}: neither SPLIT_ims.npy and SPLIT_caps.txt nor folders NAME{SUFFIX} in it')
  return folders
