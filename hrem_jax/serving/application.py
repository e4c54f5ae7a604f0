"""The page and the API as one ASGI application."""

import pathlib
import re
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from hrem_jax.errors import UserError, one_line, say
from hrem_jax.search.index import BrokenIndex
from hrem_jax.search.searcher import Searcher
from hrem_jax.serving.gallery import Gallery
from hrem_jax.serving.guards import Guards
from hrem_jax.serving.routes import Service, routes
from hrem_jax.serving.searches import Busy, Searches

LOCAL_HOSTS = ('localhost', '127.0.0.1', '::1')
_PAGE = {
  'index.html': 'text/html',
  'style.css': 'text/css',
  'icon.svg': 'image/svg+xml',
  'main.js': 'text/javascript',
  'requests.js': 'text/javascript',
  'views.js': 'text/javascript',
}


def create_application(
  searcher: Searcher,
  gallery: Callable[[], Iterable[pathlib.Path]],
  *,
  model: str,
  hosts: Collection[str] = LOCAL_HOSTS,
  is_any_address: bool = False,
  searches: Searches | None = None,
) -> ASGIApp:
  """The application for one index.

  Args:
    searcher: The index; called from several threads.
    gallery: Tells the folders of the picture files; nothing outside them is ever read.
    model: What made the index, for people.
    hosts, is_any_address: Of `Guards`.
    searches: The places for searches.
  """
  # The documentation that FastAPI would serve loads its scripts from elsewhere; /openapi.json says the same.
  app = FastAPI(title='hrem_jax', docs_url=None, redoc_url=None, redirect_slashes=False)
  app.state.service = Service(searcher, Gallery(gallery), model, searches or Searches())
  for error, answer in _ANSWERS.items():
    app.add_exception_handler(error, answer)
  app.include_router(routes)
  for name, kind in _PAGE.items():
    _add_page_file(app, '/' if name == 'index.html' else f'/page/{name}', name, kind)
  return Guards(app, hosts, is_any_address=is_any_address)


def _add_page_file(app: FastAPI, address: str, name: str, kind: str) -> None:
  content = files('hrem_jax.serving').joinpath('page', name).read_bytes()

  @app.get(address, include_in_schema=False)
  def page_file() -> Response:
    return Response(content, media_type=kind, headers={'Cache-Control': 'no-cache'})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
  return JSONResponse({'error': message}, status, headers)


def _refused(request: Request, error: HTTPException) -> JSONResponse:
  return _error(error.status_code, str(error.detail), error.headers)


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
  problems = [f'{" ".join(map(str, problem["loc"]))}: {problem["msg"]}' for problem in error.errors()]
  return _error(422, one_line('; '.join(problems)))


def _impossible(request: Request, error: UserError) -> JSONResponse:
  """Messages name files; whoever asks over the network needs no more of them than their last part."""
  return _error(422, re.sub(r'\S*/', '', one_line(error)))


def _broken_index(request: Request, error: BrokenIndex) -> JSONResponse:
  """Nobody who asks can mend it; whoever runs the server reads all of it."""
  say(error)
  return _error(503, re.sub(r'\S*/', '', one_line(error)))


def _busy(request: Request, error: Busy) -> JSONResponse:
  return _error(503, 'busy with other searches: try again in a moment', {'Retry-After': '2'})


def _broken(request: Request, error: Exception) -> JSONResponse:
  """The traceback is for the terminal of the server, not for who asked."""
  return _error(500, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)


_ANSWERS = {
  HTTPException: _refused,
  RequestValidationError: _invalid,
  BrokenIndex: _broken_index,
  UserError: _impossible,
  Busy: _busy,
  Exception: _broken,
}
