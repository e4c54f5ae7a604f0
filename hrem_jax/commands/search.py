"""`search`: the pictures of an index that are nearest to a sentence or a picture."""

import argparse

from hrem_jax.paths import index_address, local_path


def add(commands: argparse._SubParsersAction) -> None:
  parser = commands.add_parser('search', help='find the pictures of an index nearest to a sentence or a picture')
  parser.add_argument('index', type=index_address, help='a file that `encode` wrote')
  query = parser.add_mutually_exclusive_group()
  query.add_argument('--text', help='a sentence')
  query.add_argument('--image', type=local_path, help='a picture file')
  query.add_argument('--id', help='of a picture in the index: the others nearest to it')
  way = parser.add_mutually_exclusive_group()
  way.add_argument('--words', action='store_true', help='with --text: its words, as they stand in captions and names')
  way.add_argument('--both', action='store_true', help='with --text: by meaning and by words together')
  parser.add_argument('--only-captions', metavar='TEXT', help='only pictures with this in a caption, whatever the case')
  parser.add_argument('--only-paths', metavar='PATTERN', help="only pictures found there, such as 'holidays/*'")
  parser.add_argument('--count', type=int, default=10, help='how many (10)')
  parser.add_argument('--json', action='store_true', help='one JSON object a line: rank, score, id, captions, picture')
  parser.add_argument(
    '--backend',
    default='exact',
    choices=['exact', 'faiss', 'usearch', 'lance'],
    help='exact (default), or the graph of a library (extra `search`) or of LanceDB: faster with very many pictures',
  )
  parser.add_argument('--recall', action='store_true', help='measure what the backend finds of the exactly nearest')
  parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
  from hrem_jax.errors import UserError, say
  from hrem_jax.search.index import Where, open_index
  from hrem_jax.search.results import as_json, as_text, picture_of
  from hrem_jax.search.searcher import Searcher, open_searcher

  if arguments.text is arguments.image is arguments.id is None and not arguments.recall:
    raise UserError('nothing to search for: expected --text, --image, --id or --recall')
  if arguments.count < 1:
    raise UserError(f'--count {arguments.count}: expected 1 or more')
  if (arguments.words or arguments.both) and arguments.text is None:
    raise UserError('--words and --both look for a text: expected --text')
  picture = picture_of(arguments.image) if arguments.image else None  # cheaper than an encoder: told first
  if arguments.words and not arguments.recall:  # which need no encoder
    searcher = Searcher(open_index(arguments.index), None)
  else:
    searcher = open_searcher(arguments.index, backend=arguments.backend)
  where = Where(arguments.only_captions, arguments.only_paths)
  where = where if where != Where() else None
  if not len(searcher):
    raise UserError(f'{arguments.index}: holds no pictures: there is nothing to find')
  if arguments.recall:
    share, queries = searcher.recall(arguments.count)
    say(f'recall@{arguments.count} of {arguments.backend} against exact search: {share:.3f} ({queries})')
  hits = []
  if picture is not None:
    hits = searcher.by_picture(picture, arguments.count, where=where)
  elif arguments.id is not None:
    hits = searcher.by_id(arguments.id, arguments.count, where=where)
  elif arguments.text is not None:
    by = 'words' if arguments.words else 'both' if arguments.both else 'meaning'
    hits = searcher.by_text(arguments.text, arguments.count, by=by, where=where)
    if not arguments.words and (unknown := searcher.unknown_words(arguments.text)):
      say(f'not in the vocabulary, so without meaning here: {", ".join(unknown)}')
  print(as_json(hits) if arguments.json else as_text(hits), end='')
