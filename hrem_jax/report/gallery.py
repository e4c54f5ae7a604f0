"""Queries and what was found for them, as HTML."""

from collections.abc import Callable
from html import escape

from hrem_jax.data.precomputed import Split
from hrem_jax.report.examples import Candidate, Example, Examples
from hrem_jax.report.pictures import Pictures

_NO_PICTURES = (
  '<p class="quiet">The data folder has no <code>pictures</code>: cards with the id of the image and its first caption '
  'stand for them.</p>'
)
_MAX_POSITIONS = 10  # listed of one query's right ones


class Gallery:
  """Draws the examples of one split.

  Args:
    split: Whose rows the examples name.
    pictures: Where there is none for an image, a card with its id and first caption stands for it.
  """

  def __init__(self, split: Split, pictures: Pictures):
    self._split, self._pictures = split, pictures
    self._first_caption = {}
    for text, image in enumerate(split.owner):
      self._first_caption.setdefault(int(image), split.captions[text])

  def pictures_for_captions(self, examples: Examples) -> str:
    groups = _groups(examples, 'caption', 'picture', self._split.name, self._pictures_for_caption)
    return groups if self._pictures.are_there else _NO_PICTURES + groups

  def captions_for_pictures(self, examples: Examples) -> str:
    return _groups(examples, 'picture', 'caption', self._split.name, self._captions_for_picture)

  def _pictures_for_caption(self, example: Example) -> str:
    caption = escape(self._split.captions[example.query])
    shown = list(example.best) if example.right_is_shown else [*example.best, example.right[0]]
    items = ''.join(
      f'<li class="{_kind(candidate, example)}">{self._picture(candidate.row)}{_caption_line(candidate)}</li>'
      for candidate in shown
    )
    return (
      f'<article class="for-caption"><header><h4>{caption}</h4>{_verdict(example, "picture")}</header>'
      f'<ol class="found-pictures">{items}</ol></article>'
    )

  def _captions_for_picture(self, example: Example) -> str:
    shown = list(example.best) if example.right_is_shown else [*example.best, example.right[0]]
    items = ''.join(
      f'<li class="{_kind(candidate, example)}"><span class="position">{candidate.position}</span>'
      f'<span class="text">{escape(self._split.captions[candidate.row])} {_tick(candidate)}</span>'
      f'<span class="score">{_score(candidate)}</span></li>'
      for candidate in shown
    )
    return (
      f'<article class="for-picture"><div class="asked">{self._picture(example.query)}</div>'
      f'<div class="answer">{_verdict(example, "caption")}<ol class="found-captions">{items}</ol>'
      f'<p class="quiet">{_positions(example)}</p></div></article>'
    )

  def _picture(self, image: int) -> str:
    """The picture, or a card in its place."""
    image_id, caption = self._split.ids[image], self._first_caption.get(image, 'no caption')
    address = self._pictures.address(image_id)
    if address is None:
      return f'<div class="picture card"><b>{escape(image_id)}</b><span>{escape(caption)}</span></div>'
    return f'<img class="picture" src="{address}" alt="{escape(caption)}" title="{escape(image_id)}">'


def _groups(examples: Examples, asked: str, found: str, split: str, draw: Callable[[Example], str]) -> str:
  """How the examples were chosen, then hits, then misses."""
  total = examples.num_hits + examples.num_misses
  chosen = (
    f'Chosen by rule, not by hand: of the {total:,} {asked}s of <b>{escape(split)}</b>, {examples.num_hits:,} '
    f'({_percent(examples.num_hits, total)}) find a right {found} in the first place and {examples.num_misses:,} '
    f'({_percent(examples.num_misses, total)}) do not, equal scores counted against the model. '
    f'Shown are {len(examples.hits)} of the first and {len(examples.misses)} of the second kind, each evenly spaced '
    'in the order of the data set.'
  )
  parts = [f'<p class="quiet">{chosen}</p>']
  for title, group in ((f'Right {found} first', examples.hits), (f'Another {found} first', examples.misses)):
    if group:
      parts.append(f'<h3>{title}</h3><div class="examples">{"".join(map(draw, group))}</div>')
  return ''.join(parts)


def _percent(count: int, total: int) -> str:
  return f'{100 * count / total:.1f} %'


def _kind(candidate: Candidate, example: Example) -> str:
  """The class of a list's entry; `beyond`: after those that are shown in a row."""
  kind = 'right' if candidate.is_right else 'wrong'
  return f'{kind} beyond' if candidate.position > len(example.best) else kind


def _caption_line(candidate: Candidate) -> str:
  return (
    f'<p><span class="position">{candidate.position:,}</span>{_tick(candidate)}'
    f'<span class="score">{_score(candidate)}</span></p>'
  )


def _tick(candidate: Candidate) -> str:
  return '<span class="tick">✓<span class="word"> right</span></span>' if candidate.is_right else ''


def _score(candidate: Candidate) -> str:
  return f'{candidate.score:.3f}'.replace('-', '−')


def _verdict(example: Example, found: str) -> str:
  best = example.right[0].position
  if example.is_hit:
    return f'<p class="verdict hit">✓ right {found} first</p>'
  kind = 'near' if example.right_is_shown else 'miss'
  return f'<p class="verdict {kind}">✗ right {found} at rank {best:,} of {example.num_candidates:,}</p>'


def _positions(example: Example) -> str:
  """Where all captions of a picture stand."""
  listed = ', '.join(f'{right.position:,}' for right in example.right[:_MAX_POSITIONS])
  more = ', …' if len(example.right) > _MAX_POSITIONS else ''
  count = len(example.right)
  words = 'Its one caption stands' if count == 1 else f'Its {count} captions stand'
  return f'{words} at {listed}{more} of {example.num_candidates:,}.'
