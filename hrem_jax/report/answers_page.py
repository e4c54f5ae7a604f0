"""Which regions answer which words, as HTML: a word that is pointed at or focused lights up its regions. No scripts."""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float

from hrem_jax.data.precomputed import Split
from hrem_jax.report.answers import Answer
from hrem_jax.report.heat_map import Scale, heat_map, number, scale_of
from hrem_jax.report.pictures import Pictures

_ABOUT = (
  'Cosines of the fragments of words and regions, where the association graph starts from; a word in several pieces '
  'has their mean. ⟨start⟩ and ⟨end⟩ count as words. On a picture the colours of a word go from its least cosine to '
  'its largest, which is outlined; in the table of numbers all words share one scale. Captions of the examples above, '
  'chosen by the same rule: '
)
_HOW = 'point at a word, tap it or step to it with the Tab key.'


def answers_section(
  answers: Sequence[Answer], split: Split, pictures: Pictures, boxes: Float[np.ndarray, 'a r 4'] | None, problem: str
) -> str:
  """All pairs, or why there is none.

  Args:
    answers: In the order of `boxes`.
    split: Whose rows they name.
    pictures: Of the data folder.
    boxes: Fractions of the pictures; None where there are none.
    problem: Why the boxes that are there are not used.
  """
  if not answers:
    return '<p class="quiet">The split has no caption to show.</p>'
  note = f'<p class="note"><b>Note.</b> {escape(problem)}</p>' if problem else ''
  figures = []
  for index, answer in enumerate(answers):
    place = pictures.placed(split.ids[answer.pair.image]) if boxes is not None else None
    draw = _table_figure if place is None else _picture_figure
    own_boxes = None if boxes is None else boxes[index]
    figures.append(draw(answer, split, own_boxes, place))
  what = _HOW if any('class="lit"' in figure for figure in figures) else 'regions by their numbers.'
  return f'<p class="quiet">{_ABOUT}{what}</p>{note}<div class="answers">{"".join(figures)}</div>'


def _heading(answer: Answer, split: Split) -> str:
  kind = 'verdict hit' if answer.pair.is_right else 'verdict'
  return (
    f'<figcaption class="asks"><b>{escape(split.captions[answer.pair.text])}</b> '
    f'<span class="{kind}">{escape(answer.pair.verdict)} ({escape(split.ids[answer.pair.image])})</span></figcaption>'
  )


def _table_figure(answer: Answer, split: Split, boxes, place) -> str:
  return f'<figure class="answer-table">{_heading(answer, split)}{_table(answer)}</figure>'


def _table(answer: Answer) -> str:
  scale = scale_of(answer.cosine)
  columns = [f'{region}' for region in range(1, answer.cosine.shape[1] + 1)]
  title = 'Cosine of word (row) and region (column)'
  table = heat_map(title, answer.cosine, [escape(word) for word in answer.words], columns, scale, corner='')
  return f'{table}{scale.legend("cosine")}'


def _picture_figure(answer: Answer, split: Split, boxes: Float[np.ndarray, 'r 4'], place: tuple[str, float]) -> str:
  """The picture, its words over it, all words as small pictures, and the numbers."""
  address, aspect = place
  words = zip(answer.words, answer.cosine, strict=True)
  lit = [(word, cosine, _overlay(cosine, boxes, scale_of(cosine))) for word, cosine in words]
  # While none is chosen, the word that tells regions apart most is lit.
  shown = int(np.ptp(answer.cosine, axis=1).argmax())
  buttons = ''.join(
    f'<button type="button" class="lit{" first" if index == shown else ""}" title="{_spoken(word, cosine)}">'
    f'{escape(word)}{overlay}</button>'
    for index, (word, cosine, overlay) in enumerate(lit)
  )
  small = ''.join(
    f'<li><div class="pictured">{overlay}</div><p>{escape(word)} <span>{_range(cosine)}</span></p></li>'
    for word, cosine, overlay in lit
  )
  style = f'--picture:url({address});--aspect:{aspect:.4f}'
  label = escape(f'picture {split.ids[answer.pair.image]} with its regions')
  return (
    f'<figure class="answer-picture" style="{style}"><div class="stage"><div class="pictured" role="img" '
    f'aria-label="{label}"></div><p class="words">{buttons}</p></div>{_heading(answer, split)}'
    f'<p class="scale">least<span class="ramp"></span>largest cosine of the word with a region</p>'
    f'<details><summary>All words at once</summary>'
    f'<ol class="multiples">{small}</ol></details>'
    f'<details><summary>Numbers</summary>{_table(answer)}</details></figure>'
  )


def _spoken(word: str, cosine: Float[np.ndarray, ' r']) -> str:
  return escape(f'{word}: best region {int(cosine.argmax()) + 1}, cosine {cosine.max():.2f}, least {cosine.min():.2f}')


def _range(cosine: Float[np.ndarray, ' r']) -> str:
  return f'{number(float(cosine.min()))} to {number(float(cosine.max()))}'


def _overlay(cosine: Float[np.ndarray, ' r'], boxes: Float[np.ndarray, 'r 4'], scale: Scale) -> str:
  """The regions of one word, the weakest first, the best one outlined."""
  boxes = 100 * boxes[: len(cosine)]
  paths = ''.join(
    f'<path d="{_outline(boxes[region])}" fill-opacity="{0.75 * scale.place(float(cosine[region])) ** 2:.3f}"/>'
    for region in np.argsort(cosine, kind='stable')
  )
  best = f'<path class="best" d="{_outline(boxes[cosine.argmax()])}"/>'
  return f'<svg class="regions" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{paths}{best}</svg>'


def _outline(box: Float[np.ndarray, '4']) -> str:
  x0, y0, x1, y1 = (f'{float(edge):.1f}' for edge in box)
  return f'M{x0} {y0}H{x1}V{y1}H{x0}z'
