"""What the server has to know of an index beside what its searcher tells."""

import pathlib

from hrem_jax.search.manifest import Place, read_manifest


def gallery_folders(index: pathlib.Path) -> list[pathlib.Path]:
  """The folders with the picture files of an index, as it is now."""
  return [source.find(index) / 'pictures' for source in read_manifest(index).sources]


def model_name(index: pathlib.Path) -> str:
  """The name of the folder of its encoder, without the folders before it."""
  return pathlib.Path(Place(**read_manifest(index).encoder['place']).path).name
