"""Axes end in round numbers, and nothing is lost between reports and lines."""

import pytest

from hrem_jax.report.axis import label, step_axis, value_axis
from hrem_jax.report.curves import averaged, line_of, training_curves


@pytest.mark.parametrize(
  ('values', 'labels', 'is_log'),
  [
    ([210, 223], ['210', '215', '220', '225'], False),
    ([100, 223], ['0', '100', '200', '300'], False),
    ([0.001, 0.0010000000475], ['0', '0.0005', '0.001'], False),
    ([-1, 2], ['-1', '0', '1', '2'], False),
    ([0, 0], ['0', '0.5', '1'], False),
    ([5e-4, 5e-6], ['1e-5', '0.0001'], True),
    ([1e-6, 3.0], ['1e-6', '0.0001', '0.01', '1'], True),
    ([], ['0', '0.5', '1'], False),
  ],
)
def test_value_axis(values, labels, is_log):
  axis = value_axis(values)
  assert [label(tick) for tick in axis.ticks] == labels
  assert axis.is_log == is_log
  assert all(-0.1 <= axis.place(value) <= 100.1 for value in values)


def test_the_last_step_stands_at_the_end():
  axis = step_axis([34000])
  assert [label(tick) for tick in axis.ticks] == ['0', '10,000', '20,000', '30,000']
  assert axis.place(34000) == 100
  assert step_axis([]).place(1) == 100


def test_labels():
  assert [label(value) for value in (0, 12345.0, 0.25, 1e-5, 2.5e-7, 3e8)] == [
    '0', '12,345', '0.25', '1e-5', '2.5e-7', '3e8',
  ]  # fmt: skip
  assert label(0.00118300854, 4) == '0.001183'


def test_many_reports_become_means():
  points = [(float(step), float(step % 2)) for step in range(1000)]
  assert averaged(points, 1000) == points
  fewer = averaged(points, 250)
  assert len(fewer) == 250
  assert fewer[0] == (1.5, 0.5)
  assert averaged([], 10) == []


def test_reports_without_the_key_are_no_points():
  line = line_of([{'step': 1, 'loss': 2.0}, {'step': 2}, {'step': 3, 'loss': float('nan')}], 'loss', 'total')
  assert line.points == [(1.0, 2.0)]
  assert line.num_not_finite == 1


def test_every_term_is_drawn_small_ones_apart_and_phases_are_marked():
  reports = [
    {'kind': 'train', 'step': step, 'loss': 9.0, 'loss/matching': 8.0, 'loss/other': 1.0, 'loss/regularity': 0.01}
    for step in (10, 20, 30)
  ]
  page = training_curves([*reports, {'kind': 'phase', 'step': 15, 'phase': 'hardest'}], select_on='dev', best_step=30)
  large, small = page.split('charts small')
  assert '>hardest</span>' in large
  assert '<b>8</b>' in large
  assert 'Regularity loss' in small
  assert 'regularity' not in large
