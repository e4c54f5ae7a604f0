"""What the server has to know of an index beside what its searcher tells."""

import contextlib
import pathlib

from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.search.index import Index, Place
from hrem_jax.search.searcher import Searcher


def gallery_folders(index: Index) -> list[pathlib.Path]:
  """The folders with the picture files of an index, as it is now."""
  return [source.find(index.address) / 'pictures' for source in index.state().about.sources.values()]


def model_name(index: Index) -> str:
  """The name of the folder of its encoder, without the folders before it."""
  return Place(**index.state().about.encoder['place']).name


def warm_up(searcher: Searcher) -> None:
  """Searches once with a text and once with a picture: the first searches compile, which nobody should wait for."""
  ids = searcher.ids(0, 1)
  captions = searcher.item(ids[0]).captions if ids else ()
  with contextlib.suppress(UserError):  # a text of no known words; who searches is told
    searcher.by_text(captions[0] if captions else 'a picture', 1)
  with contextlib.suppress(UserError):  # no encoder for pictures
    searcher.by_picture(Image.new('RGB', (64, 64)), 1)
