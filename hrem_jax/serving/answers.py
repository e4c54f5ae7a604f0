"""What the API answers with."""

import dataclasses
from urllib.parse import quote

from hrem_jax.search.searcher import Hit


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the index.

  Attributes:
    id: Its name in the index.
    captions: Its own, none where it has none.
    picture: Where its file is, relative to the page; null where there is none.
  """

  id: str
  captions: list[str]
  picture: str | None


@dataclasses.dataclass(frozen=True)
class Found(Picture):
  """A picture that was found; `score` is its cosine similarity with what was asked for, or how well its words fit."""

  score: float


@dataclasses.dataclass(frozen=True)
class Results:
  """The best first.

  Attributes:
    results: What was found.
    unknown: Words of the text that the model has not learnt; what was found is what the others say.
  """

  results: list[Found]
  unknown: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Page:
  """Pictures of the index from `start` on, of `total`."""

  pictures: list[Picture]
  start: int
  total: int


@dataclasses.dataclass(frozen=True)
class About:
  """The index, and the largest requests that are answered."""

  pictures: int
  model: str
  version: str
  max_text: int
  max_upload: int
  max_results: int


@dataclasses.dataclass(frozen=True)
class Error:
  """Every status of 400 and more has this body."""

  error: str


def picture_of(hit: Hit) -> Picture:
  return Picture(hit.id, list(hit.captions), _address(hit))


def found(hit: Hit) -> Found:
  return Found(hit.id, list(hit.captions), _address(hit), hit.score)


def _address(hit: Hit) -> str | None:
  return None if hit.picture is None else f'pictures/{quote(hit.id, safe="")}'
