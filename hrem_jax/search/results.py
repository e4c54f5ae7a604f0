"""What was asked and found, at the edge: files of pictures in, lines for people and programs out."""

import json
import pathlib
from collections.abc import Sequence

from PIL import Image

from hrem_jax.errors import UserError
from hrem_jax.extraction.decoding import UnreadablePicture, open_picture
from hrem_jax.paths import local_path
from hrem_jax.search.searcher import Hit


def picture_of(path: pathlib.Path) -> Image.Image:
  """The picture in a file as RGB, upright; UserError where it cannot be read."""
  try:
    with open_picture(local_path(path)) as (picture, _):
      return picture
  except UnreadablePicture as error:
    raise UserError(f'{path}: not a picture that can be read: {error}') from error


def as_json(hits: Sequence[Hit]) -> str:
  """One object a line, best first."""
  return ''.join(
    json.dumps(
      {
        'rank': rank,
        'score': round(hit.score, 6),
        'id': hit.id,
        'captions': hit.captions,
        'picture': None if hit.picture is None else str(hit.picture),
      },
      ensure_ascii=False,
    )
    + '\n'
    for rank, hit in enumerate(hits, start=1)
  )


def as_text(hits: Sequence[Hit]) -> str:
  """A line with rank, score, id and file, and one for each caption."""
  lines = []
  for rank, hit in enumerate(hits, start=1):
    lines.append(f'{rank:3}  {hit.score:.3f}  {hit.id}{f"  {hit.picture}" if hit.picture else ""}')
    lines += [f'            {caption}' for caption in hit.captions]
  return ''.join(f'{line}\n' for line in lines)
