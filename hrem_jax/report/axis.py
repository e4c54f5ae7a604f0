"""From values to places on an axis, with round numbers at its ticks."""

import dataclasses
import math
from collections.abc import Iterable

_LOG_FROM = 30  # largest over smallest value from which a logarithmic axis shows more
_MAX_LOG_TICKS = 6


@dataclasses.dataclass(frozen=True)
class Axis:
  """A range of numbers, linear or logarithmic, and its ticks."""

  low: float
  high: float
  ticks: tuple[float, ...]
  is_log: bool = False

  def place(self, value: float) -> float:
    """Where a value stands between `low` and `high`, in percent."""
    low, high = self.low, self.high
    if self.is_log:
      low, high, value = math.log(low), math.log(high), math.log(value)
    return 100 * (value - low) / (high - low)


def value_axis(values: Iterable[float]) -> Axis:
  """An axis for finite values, ending in round numbers; logarithmic where they are positive and differ much."""
  values = list(values)
  low, high = min(values, default=0.0), max(values, default=1.0)
  if low > 0 and high / low >= _LOG_FROM:
    return _log_axis(low, high)
  if 0 < low < 0.5 * high or 0 < high - 1e-3 * high < low:
    low = 0.0  # a drop to a half should look like one, and a constant like a constant
  if low == high:
    high = low + (abs(low) or 1.0)
  step = round_step(high - low)
  # A value that is off a tick by less than can be seen (0.001 in float32) needs no further tick.
  first, last = math.floor(low / step + 1e-3), math.ceil(high / step - 1e-3)
  return Axis(first * step, last * step, tuple(index * step for index in range(first, last + 1)))


def step_axis(steps: Iterable[float]) -> Axis:
  """An axis from zero to the last step exactly."""
  high = float(max(steps, default=0)) or 1.0
  step = max(round_step(high), 1.0)
  return Axis(0.0, high, tuple(index * step for index in range(math.floor(high / step) + 1)))


def round_step(span: float) -> float:
  """1, 2 or 5 times a power of ten, about a quarter of the span."""
  power = 10.0 ** math.floor(math.log10(span / 4))
  return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4 * (1 - 1e-9))


def _log_axis(low: float, high: float) -> Axis:
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  marks = [float(f'{factor}e{power}') for power in range(first, last + 1) for factor in (1, 2, 5)]
  low = max(mark for mark in marks if mark <= low * (1 + 1e-9))
  high = min(mark for mark in marks if mark >= high * (1 - 1e-9))
  ticks = [mark for mark in marks if low <= mark <= high]
  if len(ticks) > _MAX_LOG_TICKS:
    ticks = [float(f'1e{power}') for power in range(first, last + 1) if low <= float(f'1e{power}') <= high]
  every = math.ceil(len(ticks) / _MAX_LOG_TICKS)
  return Axis(low, high, tuple(ticks[::every]), is_log=True)


def label(value: float, digits: int = 10) -> str:
  """A number as a person writes it, to so many digits: 10,000, 0.25, 1e-5."""
  value = float(f'{value:.{digits}g}')
  if value and not 1e-4 <= abs(value) < 1e7:
    mantissa, exponent = f'{value:.2e}'.split('e')
    return f'{float(mantissa):g}e{int(exponent)}'
  return f'{value:,.10g}'
