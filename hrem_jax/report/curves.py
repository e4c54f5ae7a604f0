"""Training curves as HTML: SVG lines that stretch with the page, and labels that do not."""

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from hrem_jax.report.axis import Axis, label, step_axis, value_axis

Point = tuple[float, float]  # step, value

_MAX_POINTS = 300  # of a line; more reports are averaged
_MAX_DOTS = 40
_SMALL = 50  # a term of the loss that is so many times smaller than the total gets a chart of its own


@dataclasses.dataclass(frozen=True)
class Line:
  """One quantity over the steps."""

  name: str
  points: list[Point]
  num_not_finite: int = 0  # reports that cannot be drawn

  @property
  def summary(self) -> str:
    """The last value, for the legend."""
    return label(self.points[-1][1], 4) if self.points else '–'


@dataclasses.dataclass(frozen=True)
class Mark:
  """A step that a person should notice."""

  step: float
  text: str
  value: float | None = None  # gets a ring there


def line_of(reports: list[dict], key: str, name: str) -> Line:
  """The values of one key of the reports of one kind; long ones as the means of equal numbers of reports."""
  found = [(report['step'], report[key]) for report in reports if key in report]
  points = [(float(step), float(value)) for step, value in found if math.isfinite(value)]
  return Line(name, averaged(points, _MAX_POINTS), len(found) - len(points))


def averaged(points: list[Point], max_points: int) -> list[Point]:
  """Means of consecutive points, at most `max_points` of them; the points themselves where there are no more."""
  size = math.ceil(len(points) / max_points)
  groups = [points[start : start + size] for start in range(0, len(points), max(size, 1))]
  return [tuple(math.fsum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]


def training_curves(reports: list[dict], *, select_on: str, best_step: int) -> str:
  """All curves of a run, or a sentence where nothing was reported.

  Args:
    reports: What `read_metrics` gives: `kind`, `step` and numbers.
    select_on: The kind whose `rsum` chose the checkpoint.
    best_step: The chosen checkpoint's.
  """
  train = [report for report in reports if report.get('kind') == 'train']
  scores = [
    report for report in reports if report.get('kind') == select_on and math.isfinite(report.get('rsum', math.nan))
  ]
  if not train and not scores:
    return '<p class="quiet">No curves: the folder has no <code>metrics.jsonl</code>.</p>'
  last_step = max(report['step'] for report in train + scores)
  phases = [Mark(report['step'], str(report['phase'])) for report in reports if report.get('kind') == 'phase']
  chosen = [report['rsum'] for report in scores if report['step'] == best_step]
  best = [Mark(best_step, f'step {best_step:,} · {score:.1f}', score) for score in chosen]
  terms = dict.fromkeys(key for report in train for key in report if key.startswith('loss/'))
  total, lines = line_of(train, 'loss', 'total'), {key: line_of(train, key, key[len('loss/') :]) for key in terms}
  others = [key for key, line in lines.items() if _largest(line) < _largest(total) / _SMALL]
  losses = [total, *(line for key, line in lines.items() if key not in others)]
  steps = step_axis([last_step])
  recalls = [line_of(scores, f'{way}/{at}', f'{way} R@{at[1:]}') for way in ('i2t', 't2i') for at in ('r1', 'r10')]
  large = [
    chart('Loss', losses, steps, marks=phases, note='terms before their weights'),
    chart(f'rSum on {select_on}', [line_of(scores, 'rsum', 'last')], steps, marks=best, note='higher is better'),
    chart(f'Recalls on {select_on}', [line for line in recalls if line.points], steps, note='percent'),
  ]
  small = [
    chart(title, [line_of(train, key, 'last')], steps)
    for title, key in (
      *((f'{key.removeprefix("loss/")} loss'.capitalize(), key) for key in others),
      ('Learning rate', 'learning_rate'),
      ('Gradient norm', 'gradient_norm'),
      ('Skipped updates', 'skipped'),
      ('Examples per second', 'examples_per_second'),
    )
  ]
  return (
    '<p class="quiet">Over the steps of the training; the ring is the chosen checkpoint.</p>'
    f'<div class="charts large">{"".join(large)}</div><div class="charts small">{"".join(small)}</div>'
  )


def _largest(line: Line) -> float:
  return max((abs(value) for _, value in line.points), default=0.0)


def chart(title: str, lines: Sequence[Line], steps: Axis, *, marks: Sequence[Mark] = (), note: str = '') -> str:
  """One plot with its legend; empty where no line has a point."""
  values = [value for line in lines for _, value in line.points]
  lost = sum(line.num_not_finite for line in lines)
  if not values and not lost:
    return ''
  axis = value_axis(values)
  notes = [note, 'log scale' if axis.is_log else '', f'{lost} not finite' if lost else '']
  legend = ''.join(
    f'<li>{_swatch(index) if len(lines) > 1 else ""}{escape(line.name)} <b>{line.summary}</b></li>'
    for index, line in enumerate(lines)
  )
  heading = f'{escape(title)} <small>{escape(" · ".join(filter(None, notes)))}</small>'
  return (
    f'<figure class="chart"><figcaption>{heading}</figcaption><ul class="legend">{legend}</ul>'
    f'{_plot(title, lines, steps, axis, marks)}</figure>'
  )


def _swatch(index: int) -> str:
  return f'<svg viewBox="0 0 20 4" aria-hidden="true"><path class="line line-{index}" d="M0 2H20"/></svg>'


def _plot(title: str, lines: Sequence[Line], steps: Axis, axis: Axis, marks: Sequence[Mark]) -> str:
  grid = ''.join(f'<path class="grid" d="M0 {_down(axis, tick)}H100"/>' for tick in axis.ticks)
  grid += ''.join(f'<path class="mark" d="M{steps.place(mark.step):.2f} 0V100"/>' for mark in marks)
  drawn = ''.join(_path(index, line, steps, axis) for index, line in enumerate(lines))
  rings = ''.join(
    f'<path class="ring" d="M{steps.place(mark.step):.2f} {_down(axis, mark.value)}h0"/>'
    for mark in marks
    if mark.value is not None
  )
  values = ''.join(f'<span style="bottom:{axis.place(tick):.2f}%">{label(tick)}</span>' for tick in axis.ticks)
  below = ''.join(f'<span style="left:{steps.place(tick):.2f}%">{label(tick)}</span>' for tick in steps.ticks)
  return (
    f'<div class="plot"><div class="values">{values}</div><div class="field">'
    f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(title)} over the steps">'
    f'{grid}{drawn}{rings}</svg>{"".join(_mark_label(mark, steps) for mark in marks)}</div>'
    f'<div class="steps">{below}</div></div>'
  )


def _path(index: int, line: Line, steps: Axis, axis: Axis) -> str:
  """The line; with few points also a dot each, whose value shows when pointed at."""
  places = [f'{steps.place(step):.2f} {_down(axis, value)}' for step, value in line.points]
  path = f'<path class="line line-{index}" d="M{"L".join(places)}"/>' if places else ''
  if len(places) > _MAX_DOTS:
    return path
  return path + ''.join(
    f'<path class="dot line-{index}" d="M{place}h0"><title>step {step:,.0f}: {label(value, 5)}</title></path>'
    for place, (step, value) in zip(places, line.points, strict=True)
  )


def _mark_label(mark: Mark, steps: Axis) -> str:
  """Beside its line, on the side where there is room."""
  place = steps.place(mark.step)
  side = f'right:{100 - place:.2f}%' if place > 50 else f'left:{place:.2f}%'
  return f'<span class="mark-label" style="{side}">{escape(mark.text)}</span>'


def _down(axis: Axis, value: float) -> str:
  """SVG counts from the top."""
  return f'{100 - axis.place(value):.2f}'
