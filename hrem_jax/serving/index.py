"""What the server has to know of an index beside what its searcher tells."""

import contextlib
import pathlib

from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.search.manifest import Place, read_manifest
from hrem_jax.search.searcher import Searcher


def gallery_folders(index: pathlib.Path) -> list[pathlib.Path]:
  """The folders with the picture files of an index, as it is now."""
  return [source.find(index) / 'pictures' for source in read_manifest(index).sources]


def model_name(index: pathlib.Path) -> str:
  """The name of the folder of its encoder, without the folders before it."""
  return pathlib.Path(Place(**read_manifest(index).encoder['place']).path).name


def warm_up(searcher: Searcher) -> None:
  """Searches once with a text and once with a picture: the first searches compile, which nobody should wait for."""
  ids = searcher.ids(0, 1)
  captions = searcher.item(ids[0]).captions if ids else ()
  with contextlib.suppress(UserError):  # a text of no known words; who searches is told
    searcher.by_text(captions[0] if captions else 'a picture', 1)
  with contextlib.suppress(UserError):  # no encoder for pictures
    searcher.by_picture(Image.new('RGB', (64, 64)), 1)
