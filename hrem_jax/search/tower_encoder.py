"""A CLIP or SigLIP as the encoder of an index: search without any training."""

import hashlib
import pathlib
import threading
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.data.provenance import read_provenance
from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import to_rgb
from hrem_jax.extraction.picture_encoders import preprocessing_sha256
from hrem_jax.ports.towers import open_towers
from hrem_jax.search.data_pictures import DataPictures

_CHUNK = 32  # texts at a time


class TowerEncoder:
  """Both towers of a Hugging Face folder. Safe to use from several threads.

  Its pictures are the embeddings that `extract` has made with it.

  Args:
    folder: Of a CLIP or SigLIP.
  """

  data_name = None

  def __init__(self, folder: pathlib.Path):
    self.folder, self.picture_encoder, self._towers = folder, folder, open_towers(folder)
    self.size = self._towers.embedding_size
    vision = self._towers.vision
    self.identity = {
      'kind': 'towers',
      'weights_sha256': vision.tensors.sha256(),
      'preprocessing_sha256': preprocessing_sha256(vision.preprocessing),
      'tokenizer_sha256': hashlib.sha256((folder / 'tokenizer.json').read_bytes()).hexdigest(),
    }
    self._vision_variables, self._text_variables = jax.device_put((vision.variables, self._towers.text.variables))
    self._pictures, self._texts = jax.jit(vision.module.apply), jax.jit(self._towers.text.module.apply)
    self._lock = threading.Lock()  # two threads would compile the same

  def check_data(self, folder: pathlib.Path) -> dict:
    provenance = read_provenance(folder) or {}
    encoder = provenance.get('encoder')
    mine = {key: self.identity[key] for key in ('weights_sha256', 'preprocessing_sha256')}
    if not isinstance(encoder, dict) or mine != {key: encoder.get(key) for key in mine}:
      made = f'with {encoder.get("encoder")}' if isinstance(encoder, dict) else 'nobody knows how'
      raise UserError(f'{folder}: not made with {self.folder}, but {made}; expected is what `extract` makes with it')
    return provenance

  def check_pictures(self, pictures: DataPictures) -> None:
    pictures.split.features.check_embeddings(self.size, f'{self.folder} makes ')

  def content(self, pictures: DataPictures, rows: np.ndarray) -> Sequence[np.ndarray]:
    return (pictures.split.features.extra('embeddings', rows),)

  def pictures(self, content: Sequence[np.ndarray]) -> Float[np.ndarray, 'i d']:
    return content[0] / np.linalg.norm(content[0], axis=1, keepdims=True)

  def texts(self, texts: Sequence[str]) -> Float[np.ndarray, 't d']:
    tokenize = self._towers.text.tokenize
    num_special = tokenize([''])[1].sum()
    tokens, mask = tokenize(texts)
    without_words = np.flatnonzero(mask.sum(axis=1) <= num_special)
    if len(without_words):
      raise UserError(f'a query without words: {texts[without_words[0]][:80]!r}')
    size = 1 if len(texts) == 1 else _CHUNK  # few shapes, few programs
    found = []
    for start in range(0, len(texts), size):
      chunk = tokens[start : start + size]
      with self._lock:
        features = self._texts(self._text_variables, np.pad(chunk, [(0, size - len(chunk)), (0, 0)], mode='edge'))
      found.append(np.asarray(features.embedding, np.float32)[: len(chunk)])
    return np.concatenate(found) if found else np.zeros((0, self.size), np.float32)

  def unknown_words(self, text: str) -> list[str]:
    return []  # it spells them

  def query_picture(self, picture: Image.Image) -> Float[np.ndarray, ' d']:
    pixels = np.asarray(self._towers.vision.preprocessing(to_rgb(picture)), np.float32)
    with self._lock:
      return np.asarray(self._pictures(self._vision_variables, pixels[None]).embedding, np.float32)[0]
