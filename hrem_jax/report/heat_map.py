"""Matrices as tables whose cells are coloured: the number stands in the cell, the colour follows light and dark."""

import dataclasses
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float, Shaped

DIVERGING, SEQUENTIAL = 'diverging', 'sequential'


@dataclasses.dataclass(frozen=True)
class Scale:
  """Which numbers the two ends of the colours stand for; a diverging one is symmetric about zero."""

  low: float
  high: float
  kind: str = SEQUENTIAL

  def place(self, value: float) -> float:
    """Between 0 and 1."""
    span = self.high - self.low
    return min(max((value - self.low) / span, 0.0), 1.0) if span > 0 else 0.5

  def legend(self, unit: str) -> str:
    """The ends of the colours with their numbers."""
    return (
      f'<p class="scale"><span>{number(self.low)}</span><span class="ramp {self.kind}"></span>'
      f'<span>{number(self.high)}</span> {escape(unit)}</p>'
    )


def scale_of(*matrices: Shaped[np.ndarray, '...']) -> Scale:
  """One sequential scale for some matrices, from their least to their largest value."""
  return Scale(float(min(matrix.min() for matrix in matrices)), float(max(matrix.max() for matrix in matrices)))


def diverging_scale(matrix: Shaped[np.ndarray, '...']) -> Scale:
  """Zero in the middle."""
  high = float(np.abs(matrix).max())
  return Scale(-high, high, DIVERGING)


def heat_map(
  title: str,
  values: Float[np.ndarray, 'a c'],
  rows: Sequence[str],
  columns: Sequence[str],
  scale: Scale,
  *,
  corner: str = '',
) -> str:
  """A table of numbers with two decimals.

  Args:
    title: Its caption: the accessible name.
    values: Finite.
    rows, columns: HTML of the headers.
    scale: Of the colours.
    corner: HTML of the empty cell: what rows and columns are.
  """
  heads = ''.join(f'<th scope="col">{column}</th>' for column in columns)
  body = ''.join(
    f'<tr><th scope="row">{row}</th>{"".join(cell(float(value), scale) for value in line)}</tr>'
    for row, line in zip(rows, values, strict=True)
  )
  return (
    f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(title)}">'
    f'<table class="heat {scale.kind}"><caption>{escape(title)}</caption>'
    f'<thead><tr><td>{corner}</td>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
  )


def cell(value: float, scale: Scale) -> str:
  place = scale.place(value)
  depth = place if scale.kind == SEQUENTIAL else abs(2 * place - 1)
  # Ink on a colour between has the better contrast in light pages, its opposite in dark ones.
  kind = ' class="deep"' if depth > 0.72 else ' class="between"' if depth > 0.52 else ''
  return f'<td{kind} style="--v:{place:.3f}" title="{value:.4f}">{number(value)}</td>'


def number(value: float) -> str:
  """Two decimals, without a zero before the point: cells are narrow."""
  text = f'{value:.2f}'
  if text.endswith('.00'):
    return f'{round(value)}'.replace('-', '−')
  return text.replace('0.', '.').replace('-', '−') if abs(value) < 1 else text.replace('-', '−')
