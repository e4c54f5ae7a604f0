"""`serve`: a web page and a JSON API for an index."""

import argparse
import functools

from hrem_jax.errors import UserError
from hrem_jax.paths import index_address


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('serve', help='search in an index with a browser, or with programs over HTTP')
  parser.add_argument('index', type=index_address, help='a file that `encode` wrote')
  parser.add_argument('--host', default='127.0.0.1', help='address to listen on (127.0.0.1: this machine only)')
  parser.add_argument('--port', type=int, default=8000, help='0 for any that is free (8000)')
  parser.add_argument(
    '--allow-host',
    action='append',
    default=[],
    metavar='NAME',
    help='another name by which browsers call this server, such as that of a reverse proxy; may be repeated',
  )
  parser.add_argument(
    '--backend',
    default='exact',
    choices=['exact', 'faiss', 'usearch', 'lance'],
    help='exact (default), or the graph of a library (extra `search`): faster with very many pictures',
  )
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  try:
    import fastapi  # noqa: F401
    import uvicorn  # noqa: F401
  except ImportError as error:
    raise UserError(f"serve needs {error.name}, which is not installed: pip install 'hrem_jax[serve]'") from error

  from hrem_jax.search.searcher import open_searcher
  from hrem_jax.serving import server
  from hrem_jax.serving.application import create_application
  from hrem_jax.serving.index import gallery_folders, model_name, warm_up

  with server.listen(arguments.host, arguments.port) as bound:  # cheaper than an index: its mistakes are told first
    searcher = open_searcher(arguments.index, backend=arguments.backend)
    application = create_application(
      searcher,
      functools.partial(gallery_folders, searcher.index),
      model=model_name(searcher.index),
      hosts=server.names_of(arguments.host, arguments.allow_host),
      is_any_address=server.is_any_address(arguments.host),
    )
    server.warn_if_public(arguments.host)
    warm_up(searcher)
    print(f'{len(searcher):,} pictures at {server.address_of(bound)} (Ctrl-C ends it)', flush=True)
    server.serve(application, bound)
