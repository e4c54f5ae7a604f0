"""Every number stands in its cell, and its colour is where it belongs on the scale."""

import re

import numpy as np
import pytest

from hrem_jax.report.heat_map import DIVERGING, Scale, diverging_scale, heat_map, number, scale_of


def test_every_value_in_its_place():
  values = np.array([[0.25, 1.0, -0.5], [0.0, 0.123456, 0.625]], np.float32)
  page = heat_map('a <title>', values, ['P1', 'P2'], ['C1', 'C2', 'C3'], scale_of(values))
  rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', page)
  assert [name for name, _ in rows] == ['P1', 'P2']
  exact = [[float(value) for value in re.findall(r'title="([^"]+)"', row)] for _, row in rows]
  np.testing.assert_allclose(exact, values, atol=6e-5)
  places = [[float(value) for value in re.findall(r'--v:([\d.]+)', row)] for _, row in rows]
  np.testing.assert_allclose(places, (values + 0.5) / 1.5, atol=6e-4)
  assert re.findall(r'>([^<]+)</td>', rows[0][1]) == ['.25', '1', '−.50']
  assert 'a &lt;title&gt;' in page
  assert '<title>' not in page


@pytest.mark.parametrize(
  ('value', 'expected'),
  [(0.0, '0'), (-0.001, '0'), (0.999, '1'), (0.126, '.13'), (-0.126, '−.13'), (10.04, '10.04'), (-2.5, '−2.50')],
)
def test_numbers_are_short(value, expected):
  assert number(value) == expected


def test_zero_is_the_middle_of_a_diverging_scale():
  scale = diverging_scale(np.array([-0.2, 0.05]))
  assert scale == Scale(-0.2, 0.2, DIVERGING)
  assert [scale.place(value) for value in (-0.2, 0.0, 0.2)] == [0, 0.5, 1]


def test_a_constant_has_a_colour():
  assert scale_of(np.full((2, 3), 0.7)).place(0.7) == 0.5
