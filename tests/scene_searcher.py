"""An index of a few scenes of the demo with the interface of `hrem_jax.search.searcher.Searcher`, without any model."""

import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from hrem_jax.data.demo.build import sample_splits
from hrem_jax.data.demo.drawing import draw
from hrem_jax.errors import UserError
from hrem_jax.search.index import UnknownPicture
from hrem_jax.search.searcher import Hit

WIDTH = 64


class Entry(NamedTuple):
  captions: tuple[str, ...]
  picture: pathlib.Path | None


def make_gallery(folder: pathlib.Path, count: int) -> dict[str, Entry]:
  """Draws scenes to `folder/pictures`."""
  (folder / 'pictures').mkdir(parents=True)
  entries = {}
  for picture in sample_splits({'test': count, 'dev': 1, 'train': 1}, 0)['test']:
    path = folder / 'pictures' / f'{picture.id}.png'
    draw(picture.scene)[0].save(path)
    entries[picture.id] = Entry(tuple(caption.text for caption in picture.captions), path)
  return entries


class SceneSearcher:
  """Texts are compared by their words with the captions, pictures by a few blurred pixels."""

  def __init__(self, entries: dict[str, Entry]):
    self.entries = entries
    self._words = np.stack([_words(' '.join(entry.captions)) for entry in entries.values()])
    self._pixels = np.stack([_pixels(_opened(entry.picture)) for entry in entries.values()])

  def __len__(self) -> int:
    return len(self.entries)

  def ids(self, start: int = 0, count: int = 50) -> list[str]:
    return list(self.entries)[start : start + count]

  def item(self, id: str) -> Hit:
    if id not in self.entries:
      raise UnknownPicture(f'/somewhere/index: no picture {id!r} in this index')
    return self._hit(id, 1.0)

  def by_text(self, text: str, count: int = 10, *, by: str = 'meaning') -> list[Hit]:
    if not re.search(r'\w', text):
      raise UserError('/somewhere/index: a query without words')
    if by == 'words':
      wanted = set(re.findall(r'\w+', text.lower()))
      texts = {name: set(re.findall(r'\w+', ' '.join(each.captions).lower())) for name, each in self.entries.items()}
      return [self._hit(name, 1.0) for name in self.entries if wanted <= texts[name]][:count]
    return self._nearest(self._words @ _words(text), count)

  def unknown_words(self, text: str) -> list[str]:
    known = set(re.findall(r'\w+', ' '.join(' '.join(entry.captions) for entry in self.entries.values()).lower()))
    return [word for word in re.findall(r'\w+', text) if word.lower() not in known]

  def by_picture(self, picture: Image.Image, count: int = 10) -> list[Hit]:
    return self._nearest(self._pixels @ _pixels(picture), count)

  def by_id(self, id: str, count: int = 10) -> list[Hit]:
    scores = self._pixels @ self._pixels[list(self.entries).index(self.item(id).id)]
    return [hit for hit in self._nearest(scores, count + 1) if hit.id != id][:count]

  def _nearest(self, scores: Sequence[float], count: int) -> list[Hit]:
    ids = list(self.entries)
    return [self._hit(ids[row], float(scores[row])) for row in np.argsort(-scores, kind='stable')[:count]]

  def _hit(self, id: str, score: float) -> Hit:
    return Hit(id, score, *self.entries[id])


def _opened(path: pathlib.Path | None) -> Image.Image:
  try:
    return Image.open(path)
  except Exception:  # tests put in what is none
    return Image.new('RGB', (8, 8), 'grey')


def _words(text: str) -> np.ndarray:
  found = np.zeros(WIDTH)
  for word in re.findall(r'\w+', text.lower()):
    found[zlib.crc32(word.encode()) % WIDTH] += 1
  return found / max(np.linalg.norm(found), 1e-9)


def _pixels(picture: Image.Image) -> np.ndarray:
  found = np.asarray(picture.convert('RGB').resize((6, 6)), float).ravel() - 127
  return found / max(np.linalg.norm(found), 1e-9)
