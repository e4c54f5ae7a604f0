"""What makes embeddings for an index: the same encoder for its pictures, for sentences, and for pictures as queries."""

import functools
import hashlib
import json
import pathlib
import threading
from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.data.provenance import FEATURE_KEYS, check_same_features, differences, read_provenance
from hrem_jax.data.tokenizer import tokenize
from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import to_rgb
from hrem_jax.extraction.picture_encoders import PictureEncoder, open_encoder
from hrem_jax.ops.grids import pool_grid
from hrem_jax.retrieval.matcher import Matcher, restore
from hrem_jax.search.data_pictures import DataPictures, Rows


class Encoder(Protocol):
  """Attributes:
  folder: Where it was read from.
  identity: JSON that tells its embeddings from others'.
  size: Of an embedding.
  """

  folder: pathlib.Path
  identity: dict
  size: int

  def check_data(self, folder: pathlib.Path) -> dict | None:
    """The provenance of a data set whose pictures it can embed; UserError where it cannot."""

  def content(self, pictures: DataPictures, rows: np.ndarray) -> Sequence[np.ndarray]:
    """What the embeddings of some pictures are made of, row by row in each array."""

  def pictures(self, content: Sequence[np.ndarray]) -> Float[np.ndarray, 'i d']:
    """Unit-norm embeddings."""

  def texts(self, texts: Sequence[str]) -> Float[np.ndarray, 't d']:
    """Unit-norm embeddings."""

  def query_picture(self, picture: Image.Image, provenance: dict | None) -> Float[np.ndarray, ' d']:
    """The unit-norm embedding of a picture, made as those of the index were; `provenance` is of their features."""


class RunEncoder:
  """A trained run. Safe to use from several threads.

  Args:
    workdir: Of the run.
    step: Of the checkpoint; None for the best one.
  """

  def __init__(self, workdir: pathlib.Path, step: int | None = None):
    self.folder = workdir
    self._matcher: Matcher = restore(workdir, step=step)
    self.size = self._matcher.embedding_size
    self.identity = {'kind': 'run', 'step': self._matcher.step, 'sha256': digest(self._matcher.variables)}
    self.data_name = self._matcher.config.data.name
    self._lock = threading.Lock()  # two threads would compile the same
    self._query_encoder = functools.cache(PictureQueries)

  def check_data(self, folder: pathlib.Path) -> dict | None:
    check_same_features(read_provenance(self.folder), folder, whose=f'{self.folder} was trained on')
    return read_provenance(folder)

  def content(self, pictures: DataPictures, rows: np.ndarray) -> Sequence[np.ndarray]:
    size = self._matcher.config.model.region_size
    if pictures.features.region_size != size:
      path, found = pictures.features.path, pictures.features.region_size
      raise UserError(f'{path}: features of size {found}, {self.folder} was trained on {size}')
    return pictures.features.rows(rows)

  def pictures(self, content: Sequence[np.ndarray]) -> Float[np.ndarray, 'i d']:
    with self._lock:
      return self._matcher.encode_rows(Rows(*content))

  def texts(self, texts: Sequence[str]) -> Float[np.ndarray, 't d']:
    """Raises UserError where a text has no word, or none that the vocabulary knows."""
    tokenizer = self._matcher.tokenizer
    tokenized = tokenize(texts, tokenizer)
    for index, text in enumerate(texts):
      tokens, _ = tokenized.caption(index)
      if not len(tokens):
        raise UserError(f'a query without words: {text!r}')
      if (tokens == tokenizer.unknown).all():
        raise UserError(f'no word of {text[:80]!r} is in the vocabulary of {self.folder}')
    with self._lock:
      return self._matcher.encode_texts(texts, few_widths=True)

  def query_picture(self, picture: Image.Image, provenance: dict | None) -> Float[np.ndarray, ' d']:
    with self._lock:
      regions = self._query_encoder(json.dumps(provenance)).regions(picture)
      return self._matcher.encode_images(regions[None])[0]


class PictureQueries:
  """Pictures through the encoder that a data set's features are of, as `extract` does it, one at a time.

  Args:
    provenance: Of the features, as JSON; null where nothing is known of them.

  Raises:
    UserError: The encoder is not known, not there, or another one now.
  """

  def __init__(self, provenance: str):
    content = json.loads(provenance)
    try:
      name, pooled = content['encoder']['encoder'], tuple(content['features']['regions'])
    except (KeyError, TypeError) as error:
      raise UserError(
        'pictures cannot be looked for in this index: its data set has no provenance.json that says which encoder made '
        'the features (`extract` writes it)'
      ) from error
    encoder = open_encoder(name)
    check_encoder(encoder, content['encoder'])
    self._encoder, self._variables = encoder, jax.device_put(encoder.variables)
    self._encode = jax.jit(lambda variables, pixels: _regions(encoder, variables, pixels, pooled))

  def regions(self, picture: Image.Image) -> Float[np.ndarray, 'r f']:
    pixels = np.asarray(self._encoder.preprocessing(to_rgb(picture)), np.float32)
    # As they would stand on the disk.
    return np.asarray(self._encode(self._variables, pixels[None]))[0].astype(np.float16).astype(np.float32)


def _regions(encoder: PictureEncoder, variables: dict, pixels, pooled: tuple[int, int]):
  return pool_grid(encoder.module.apply(variables, pixels).patches.astype(np.float32), pooled)


def check_encoder(encoder: PictureEncoder, expected: dict) -> None:
  """Raises UserError where an encoder of pictures is not the one of a provenance."""
  changed = differences(expected, json.loads(json.dumps(encoder.provenance)))
  if changed:
    raise UserError(
      f'encoder {encoder.name}: not the one that made the features of this index ({"; ".join(changed[:3])})'
    )


def digest(variables: dict) -> str:
  """SHA-256 of all names and numbers of a tree of arrays."""
  content = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
    array = np.ascontiguousarray(leaf)
    content.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n'.encode())
    content.update(array.reshape(-1).view(np.uint8).data)
  return content.hexdigest()


def feature_provenance(provenance: dict | None) -> dict | None:
  """What an index keeps of the provenance of its data sets."""
  return {key: provenance[key] for key in FEATURE_KEYS if key in provenance} if provenance else None
