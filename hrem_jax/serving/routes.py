"""The API and the picture files."""

import functools
from importlib.metadata import version
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import Response

from hrem_jax.search.index import UnknownPicture
from hrem_jax.search.searcher import Hit, Searcher
from hrem_jax.serving.answers import About, Error, Page, Picture, Results, found, picture_of
from hrem_jax.serving.gallery import Gallery
from hrem_jax.serving.limits import MAX_ID, MAX_PAGE, MAX_RESULTS, MAX_START, MAX_TEXT, MAX_UPLOAD
from hrem_jax.serving.searches import Searches
from hrem_jax.serving.uploads import decode_upload, read_upload


class Service(NamedTuple):
  """What the routes work with."""

  searcher: Searcher
  gallery: Gallery
  model: str
  searches: Searches


def _service(request: Request) -> Service:
  return request.app.state.service


def _errors(*statuses: int) -> dict[int | str, dict]:
  return {status: {'model': Error} for status in (400, *statuses)}


Serving = Annotated[Service, Depends(_service)]
Id = Annotated[str, Path(min_length=1, max_length=MAX_ID)]
Count = Annotated[int, Query(ge=1, le=MAX_RESULTS)]
routes = APIRouter()


@routes.get('/api/search', responses=_errors(403, 422, 503))
async def search_by_text(
  service: Serving,
  text: Annotated[str, Query(max_length=MAX_TEXT)],
  count: Count = 30,
  by: Literal['meaning', 'words', 'both'] = 'meaning',
) -> Results:
  """The pictures that a sentence describes best, or whose captions and names have its words, or both."""
  if not text.strip():
    raise HTTPException(422, 'query text: is blank, expected a sentence or a few words')
  with service.searches.place():
    hits = await service.searches.compute(functools.partial(service.searcher.by_text, by=by), text, count)
  return Results([found(hit) for hit in hits], [] if by == 'words' else service.searcher.unknown_words(text))


@routes.post(
  '/api/search',
  responses=_errors(403, 408, 413, 415, 422, 503),
  openapi_extra={'requestBody': {'required': True, 'content': {'image/*': {'schema': {'type': 'string'}}}}},
)
async def search_by_picture(request: Request, service: Serving, count: Count = 30) -> Results:
  """The pictures that are most similar to the one in the body of the request."""
  with service.searches.place():
    content = await read_upload(request)
    hits = await service.searches.compute(_nearest_to_upload, service.searcher, content, count)
  return Results([found(hit) for hit in hits])


def _nearest_to_upload(searcher: Searcher, content: bytes, count: int) -> list[Hit]:
  return searcher.by_picture(decode_upload(content), count)


@routes.get('/api/pictures', responses=_errors(403, 422))
def page_of_pictures(
  service: Serving,
  start: Annotated[int, Query(ge=0, le=MAX_START)] = 0,
  count: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 60,
) -> Page:
  """The pictures of the index in its order."""
  ids = service.searcher.ids(start, count)
  return Page([picture_of(service.searcher.item(each)) for each in ids], start, len(service.searcher))


@routes.get('/api/pictures/{id:path}/nearest', responses=_errors(403, 404, 422, 503))
async def nearest_pictures(service: Serving, id: Id, count: Count = 30) -> Results:
  """The other pictures that are most similar to one of the index."""
  with service.searches.place():
    _item(service, id)
    hits = await service.searches.compute(service.searcher.by_id, id, count)
  return Results([found(hit) for hit in hits])


@routes.get('/api/pictures/{id:path}', responses=_errors(403, 404, 422))
def one_picture(service: Serving, id: Id) -> Picture:
  """A picture of the index and its captions."""
  return picture_of(_item(service, id))


@routes.get('/api/about', responses=_errors(403))
def about(service: Serving) -> About:
  """What is served."""
  return About(
    pictures=len(service.searcher),
    model=service.model,
    version=version('hrem_jax'),
    max_text=MAX_TEXT,
    max_upload=MAX_UPLOAD,
    max_results=MAX_RESULTS,
  )


@routes.get(
  '/pictures/{id:path}',
  response_class=Response,
  responses=_errors(403, 404, 422) | {200: {'content': {'image/*': {}}, 'description': 'The file.'}},
)
def picture_file(service: Serving, id: Id) -> Response:
  """The file of a picture of the index, at most 512 pixels large unless `extract` was told otherwise."""
  path = _item(service, id).picture
  file = service.gallery.open(path) if path else None
  if file is None:
    raise HTTPException(404, f'no file to show of the picture {id[:80]!r}')
  return Response(file.content, media_type=file.kind, headers={'Cache-Control': 'private, max-age=600'})


def _item(service: Service, id: str) -> Hit:
  """Looked up in the index: an id of a request is never part of a path."""
  try:
    return service.searcher.item(id)
  except UnknownPicture as error:
    raise HTTPException(404, f'no picture {id[:80]!r} in the index') from error
