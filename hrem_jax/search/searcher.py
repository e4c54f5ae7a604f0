"""The user's door to an index: what is nearest to a sentence, a picture, or a picture that is in it."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float
from PIL import Image

from hrem_jax.errors import UserError, say
from hrem_jax.search.approximate import LIBRARIES, open_library
from hrem_jax.search.encoders import Encoder, open_index_encoder
from hrem_jax.search.index import About, Found, Index, Item, Where, open_index
from hrem_jax.search.recall import measure_recall
from hrem_jax.search.words import fused

WAYS = ('meaning', 'words', 'both')  # to look for a text


@dataclasses.dataclass(frozen=True)
class Hit:
  """A picture that was found."""

  id: str
  score: float  # cosine; of words another one: see `Searcher.by_text`
  captions: tuple[str, ...]  # its own, () where there are none
  picture: pathlib.Path | None  # a file to show, None where there is none


class Searcher:
  """An index with the encoder that made it; of `open_searcher`. Safe to use from several threads.

  Every call looks at one whole state of the index, the newest one: what a writer adds is found without opening anew.
  All of them raise `BrokenIndex` where the index is gone, damaged, or another one now.

  Args:
    index: The index.
    encoder: That of its embeddings; None where only words are looked for.
    backend: One of `index.backends`.
  """

  def __init__(self, index: Index, encoder: Encoder | None, backend: str = 'exact'):
    self.index, self._encoder, self._backend = index, encoder, backend

  def __len__(self) -> int:
    """Pictures in it."""
    return self.index.state().pictures

  def ids(self, start: int = 0, count: int = 50) -> list[str]:
    """Some of the ids, which are sorted."""
    return self.index.ids(max(start, 0), max(count, 0))

  def item(self, id: str) -> Hit:
    """A picture, with score 1.

    Raises:
      UnknownPicture: There is no such id.
    """
    return self._hits([Found(self.index.item(id), 1.0)])[0]

  def by_text(self, text: str, count: int = 10, *, by: str = 'meaning', where: Where | None = None) -> list[Hit]:
    """The pictures nearest to a sentence, best first; equal ones by id.

    Args:
      text: A sentence, or words.
      count: How many at most.
      by: `meaning`: the cosine of embeddings; `words`: all of them stand in captions or names, by BM25; `both`: the sum
        of 1 / (60 + rank) over the two rankings, each as long as `4 * count` and 100 at least.
      where: Which pictures come into question.

    Raises:
      UserError: It has no words, or none that the encoder knows.
    """
    if by not in WAYS:
      raise UserError(f'search by {by!r}: expected {", ".join(WAYS)}')
    if not text.strip():
      raise UserError('a query without words: expected is a sentence')
    if by == 'words':
      return self._hits(self.index.words(text, count, where=where))
    query = self._encoder.texts([text])
    if by == 'meaning':
      return self._nearest(query, count, where)
    depth = max(100, 4 * count)
    rankings = self._found(query, depth, where), self.index.words(text, depth, where=where)
    items = {each.item.id: each.item for ranking in rankings for each in ranking}
    scores = fused(*([each.item.id for each in ranking] for ranking in rankings))
    best = sorted(scores, key=lambda name: (-scores[name], name))[:count]
    return self._hits([Found(items[name], scores[name]) for name in best])

  def unknown_words(self, text: str) -> list[str]:
    """Words of a sentence that the model has not learnt: `by_text` finds what the others say."""
    return self._encoder.unknown_words(text)

  def by_picture(self, picture: Image.Image, count: int = 10, *, where: Where | None = None) -> list[Hit]:
    """The pictures nearest to a picture of any mode, decoded and upright.

    Raises:
      UserError: It is not known which encoder made the features of the index, or it is not there.
    """
    return self._nearest(self._encoder.query_picture(picture)[None], count, where)

  def by_id(self, id: str, count: int = 10, *, where: Where | None = None) -> list[Hit]:
    """The other pictures nearest to one that is in the index.

    Raises:
      UnknownPicture: There is no such id.
    """
    hits = self._nearest(self.index.vectors(id), count + 1, where)
    return [hit for hit in hits if hit.id != id][:count]

  def recall(self, count: int = 10, num_queries: int = 200) -> tuple[float, str]:
    """Which share of the exactly nearest pictures this searcher finds, and a word for what was looked for."""
    return measure_recall(self.index, self._backend, self._encoder, count, num_queries)

  def _nearest(self, queries: Float[np.ndarray, 'q d'], count: int, where: Where | None) -> list[Hit]:
    return self._hits(self._found(queries, count, where))

  def _found(self, queries: Float[np.ndarray, 'q d'], count: int, where: Where | None) -> list[Found]:
    return self.index.nearest(queries, count, backend=self._backend, where=where)

  def _hits(self, found: list[Found]) -> list[Hit]:
    about = self.index.state().about if found else None
    return [Hit(each.item.id, each.score, each.item.captions, file_of(self.index, about, each.item)) for each in found]


def file_of(index: Index, about: About, item: Item) -> pathlib.Path | None:
  """The picture's file, None where there is none."""
  if item.picture is None or item.source is None:
    return None
  path = about.source(item.source).find(index.address) / item.picture
  return path if path.is_file() else None


def open_searcher(index: str | pathlib.Path, *, backend: str = 'exact') -> Searcher:
  """Opens an index and the encoder that made it.

  Args:
    index: Its address.
    backend: `exact`, or an approximate way, such as the graph of a library: `faiss` or `usearch`. It is made where
      there is none or the index has changed much, which takes a while for many pictures; how long it took and what it
      finds of the best is told then.

  Raises:
    UserError: There is no index, it is damaged, its encoder is not there or another one now, or the library is not
      installed.
  """
  opened = open_index(index)
  check_backend(opened, backend)  # before an encoder is read for nothing
  searcher = Searcher(opened, open_index_encoder(opened), backend)
  took = opened.prepare(backend)
  if took is not None:
    recall, queries = searcher.recall()
    found = f'recall@10 against exact search {recall:.3f} ({queries})'
    say(f'{index}: made the graph of {backend} in {took:.1f} s; {found}')
  return searcher


def check_backend(index: Index, backend: str) -> None:
  """Raises UserError where an index cannot be searched in this way, or its library is not installed."""
  if backend not in index.backends:
    raise UserError(f'--backend {backend!r}: unknown here, expected one of {", ".join(index.backends)}')
  if backend in LIBRARIES:
    open_library(backend)
