"""What makes embeddings for an index: the same encoder for its pictures, for sentences, and for pictures as queries."""

import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.search.data_pictures import DataPictures
from hrem_jax.search.index import About, Index, Place
from hrem_jax.search.run_encoder import RunEncoder
from hrem_jax.search.tower_encoder import TowerEncoder


class Encoder(Protocol):
  """A `RunEncoder` or a `TowerEncoder`.

  Attributes:
    folder: Where it was read from.
    identity: JSON that tells its embeddings from others'.
    size: Of an embedding.
    data_name: Of the data set that it was trained on; None where it does not matter.
    picture_encoder: Folder of the frozen encoder of pictures, if it is known and it has one.
  """

  folder: pathlib.Path
  identity: dict
  size: int
  data_name: str | None
  picture_encoder: pathlib.Path | None

  def check_data(self, folder: pathlib.Path) -> dict | None:
    """The provenance of a data set; UserError where it is of features that are not this encoder's."""

  def check_pictures(self, pictures: DataPictures) -> None:
    """Raises UserError where there is not what the embeddings are made of."""

  def content(self, pictures: DataPictures, rows: np.ndarray) -> Sequence[np.ndarray]:
    """What the embeddings of some pictures are made of, row by row in each array."""

  def pictures(self, content: Sequence[np.ndarray]) -> Float[np.ndarray, 'i d']:
    """Unit-norm embeddings of such content."""

  def texts(self, texts: Sequence[str]) -> Float[np.ndarray, 't d']:
    """Unit-norm embeddings; UserError where a text has no words, or none that are known."""

  def unknown_words(self, text: str) -> list[str]:
    """Words of a text that `texts` can make nothing of."""

  def query_picture(self, picture: Image.Image) -> Float[np.ndarray, ' d']:
    """The unit-norm embedding of a picture of any mode, made as those of the index were; UserError where it cannot."""


def open_index_encoder(index: Index) -> Encoder:
  """The encoder that made an index; UserError where it is not there, or another one now."""
  about = index.state().about
  kind, where = about.encoder['identity'].get('kind'), Place(**about.encoder['place']).find(index.address)
  if kind == 'towers':
    encoder = TowerEncoder(where)
  elif kind == 'run':
    its = about.picture_encoder
    encoder = RunEncoder(
      where,
      about.encoder['identity'].get('step'),
      provenance=about.pictures,
      picture_encoder=its and its.find(index.address),
    )
  else:
    raise UserError(f"{index.address}: made by an encoder of kind {kind!r}, expected 'run' or 'towers'")
  check_same_encoder(encoder, about, index.address)
  return encoder


def check_same_encoder(encoder: Encoder, about: About, address: str) -> None:
  """Raises UserError where an index was made by another encoder."""
  theirs = about.encoder['identity']
  changed = [key for key in encoder.identity.keys() | theirs.keys() if encoder.identity.get(key) != theirs.get(key)]
  if changed:
    told = ', '.join(f'{key} was {theirs.get(key)!r}, is {encoder.identity.get(key)!r}' for key in sorted(changed))
    raise UserError(f'{address}: made by another encoder than {encoder.folder} ({told}): make another index')
