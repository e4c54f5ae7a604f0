"""One split of a data set in the field's precomputed layout (see docs/data.md)."""

import dataclasses
import pathlib

import ml_collections
import numpy as np
from jaxtyping import Int

from hrem_jax.data.captions import assign_owners, image_ids, read_lines
from hrem_jax.data.features import RegionFeatures
from hrem_jax.errors import UserError
from hrem_jax.paths import local_path
from hrem_jax.tower_rules import takes_embeddings

SUFFIX = '_precomp'  # of the folder of a data set
GALLERY = 'gallery'  # the split of pictures without captions: there is no gallery_caps.txt
LAYOUT = (
  'the layout is SPLIT_ims.npy (images, regions, features) float16 or float32, SPLIT_caps.txt with one caption a line, '
  'and optionally SPLIT_ids.txt, for SPLIT = train, dev, test (docs/data.md tells where features come from)'
)


@dataclasses.dataclass(frozen=True)
class Split:
  """Images, their captions and who owns which."""

  name: str
  features: RegionFeatures
  captions: list[str]
  owner: Int[np.ndarray, ' t']  # image row of each caption
  ids: list[str]  # of the images

  @property
  def num_images(self) -> int:
    return len(self.features)

  def check_region_size(self, size: int, wanted: str) -> None:
    """Raises UserError, `wanted` saying who expects features of that `size`, where they have another one."""
    if self.features.region_size != size:
      raise UserError(f'{self.features.path}: features of size {self.features.region_size}, {wanted}{size}')

  def check_inputs(self, model: ml_collections.ConfigDict) -> None:
    """Raises UserError where there is not what the section `model` of a configuration takes beside regions."""
    if model.image == 'tower':
      num_patches = (model.image_tower.image_size // model.image_tower.patch_size) ** 2
      if self.features.max_regions != num_patches:
        raise UserError(
          f'{self.features.path}: {self.features.max_regions} regions, expected the {num_patches} patches that the '
          "vision tower of config.model.image='tower' looks at: `extract --pixels` with its folder makes them"
        )
    if takes_embeddings(model):
      self.features.check_embeddings(model.embedding_size, 'expected config.model.embedding_size=')


def data_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Where the files of the section `data` lie."""
  return local_path(config.directory) / f'{config.name}{SUFFIX}'


def load_split(folder: pathlib.Path, split: str) -> Split:
  """Opens a split; of the features nothing but the header is read.

  Raises:
    UserError: A file is missing or wrong; the message names it and says what is expected.
  """
  features_path, captions_path = folder / f'{split}_ims.npy', folder / f'{split}_caps.txt'
  missing = [path.name for path in (features_path, captions_path) if not path.is_file()]
  if missing:
    if [path.name for path in folder.glob('*_ims.npy')] == [f'{GALLERY}_ims.npy']:
      raise UserError(
        f'{folder}: has pictures without captions only ({GALLERY}_ims.npy), which can be searched; training and '
        'evaluation want captions (docs/own_pictures.md)'
      )
    raise UserError(f'{folder}: {" and ".join(missing)} not found; {LAYOUT}')
  ids_path = folder / f'{split}_ids.txt'
  ids = read_lines(ids_path) if ids_path.is_file() else None
  captions = read_lines(captions_path)
  owner, repeat = assign_owners(features_path, len(captions), ids)
  features = RegionFeatures(features_path, repeat=repeat)
  return Split(split, features, captions, owner, image_ids(len(features), owner, ids, ids_path))
