"""A trained run as the encoder of an index."""

import functools
import pathlib
import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.data.pipeline import image_inputs
from hrem_jax.data.provenance import check_same_features, read_provenance
from hrem_jax.data.tokenizer import tokenize
from hrem_jax.errors import UserError
from hrem_jax.paths import local_path
from hrem_jax.retrieval.checksums import digest
from hrem_jax.retrieval.encode import require_embeddings
from hrem_jax.retrieval.matcher import restore
from hrem_jax.search.data_pictures import DataPictures, Rows
from hrem_jax.search.picture_queries import PictureQueries
from hrem_jax.tower_rules import takes_embeddings


class RunEncoder:
  """A run, with what queries of an index need. Safe to use from several threads.

  Args:
    workdir: Of the run.
    step: Of the checkpoint; None for the best one.
    provenance: Of the features of the index, for pictures as queries.
    picture_encoder: Folder of the encoder of pictures, if it is one that is read from a folder; None for the one that
      the run was trained with.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int | None = None,
    *,
    provenance: dict | None = None,
    picture_encoder: pathlib.Path | None = None,
  ):
    self.folder, self._matcher = workdir, restore(workdir, step=step)
    require_embeddings(self._matcher.method, str(workdir))
    self.size, self.data_name = self._matcher.embedding_size, self._matcher.config.data.name
    self.identity = {'kind': 'run', 'step': self._matcher.step, 'sha256': digest(self._matcher.variables)}
    self.picture_encoder = picture_encoder or self._pretrained_folder()
    self._lock = threading.Lock()  # two threads would compile the same
    self._picture_queries = functools.cache(lambda: PictureQueries(provenance, self.picture_encoder))

  def check_data(self, folder: pathlib.Path) -> dict | None:
    check_same_features(read_provenance(self.folder), folder, whose=f'{self.folder} was trained on')
    return read_provenance(folder)

  def check_pictures(self, pictures: DataPictures) -> None:
    pictures.split.check_region_size(self._matcher.config.model.region_size, f'{self.folder} was trained on ')
    pictures.split.check_inputs(self._matcher.config.model)

  def content(self, pictures: DataPictures, rows: np.ndarray) -> Sequence[np.ndarray]:
    inputs = image_inputs(pictures.split.features, rows, self._matcher.method.wants)
    return inputs.regions, inputs.mask, *inputs.extras.values()

  def pictures(self, content: Sequence[np.ndarray]) -> Float[np.ndarray, 'i d']:
    with self._lock:
      regions, mask, *extras = content
      return self._matcher.encode_rows(Rows(regions, mask, dict(zip(self._matcher.method.wants, extras, strict=True))))

  def texts(self, texts: Sequence[str]) -> Float[np.ndarray, 't d']:
    tokenizer = self._matcher.tokenizer
    tokenized = tokenize(texts, tokenizer)
    for index, text in enumerate(texts):
      tokens, _ = tokenized.caption(index)
      if not len(tokens):
        raise UserError(f'a query without words: {text[:80]!r}')
      if (tokens == tokenizer.unknown).all():
        raise UserError(f'no word of {text[:80]!r} is in the vocabulary of {self.folder}')
    with self._lock:
      return self._matcher.encode_texts(texts, few_widths=True)

  def unknown_words(self, text: str) -> list[str]:
    return self._matcher.tokenizer.unknown_words(text)

  def query_picture(self, picture: Image.Image) -> Float[np.ndarray, ' d']:
    with self._lock:
      regions, embedding = self._picture_queries()(picture)
      embeddings = embedding[None] if 'embeddings' in self._matcher.method.wants else None
      return self._matcher.encode_images(regions[None], embeddings=embeddings)[0]

  def _pretrained_folder(self) -> pathlib.Path | None:
    """The folder of towers that the run began with, if it is still there."""
    model = self._matcher.config.model
    name = model.image_weights or (model.weights if takes_embeddings(model) else '')
    folder = local_path(name)
    return folder if name and folder.is_dir() else None
