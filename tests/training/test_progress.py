"""What a training leaves in metrics.jsonl is JSON, and what it finds there is looked at before it is used."""

import json
import math

import pytest

from hrem_jax.files import to_json
from hrem_jax.training.progress import Progress, read_metrics


def test_numbers_that_are_not_finite_are_null(tmp_path):
  with Progress(tmp_path, first_step=0, num_steps=2, steps_per_epoch=2, batch_size=3) as progress:
    progress.training(1, {'loss': math.nan, 'loss/base': math.inf, 'learning_rate': 0.5})
    progress.evaluation(2, 'dev', {'rsum': 1.5})
  first, second = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  kept = json.loads(first, parse_constant=pytest.fail)
  assert (kept['loss'], kept['loss/base'], kept['learning_rate']) == (None, None, 0.5)
  first, second = read_metrics(tmp_path)
  assert math.isnan(first['loss'])
  assert second == {'kind': 'dev', 'step': 2, 'epoch': 1.0, 'rsum': 1.5}


@pytest.mark.parametrize(
  'line',
  [
    '{"kind": "dev", "step": 4, "rs',
    '[1]',
    '"text"',
    '{"kind": "dev", "step": "4", "rsum": 1}',
    '{"kind": 7, "step": 4}',
    '{"step": 4, "rsum": 1}',
    '{"kind": "dev", "step": 4, "rsum": "high"}',
    '{"kind": "dev", "step": 4, "rsum": true}',
    '{"kind": "dev", "step": 4, "rsum": [1]}',
    '[' * 100_000,
  ],
)
def test_lines_that_are_no_reports_are_left_out(tmp_path, line):
  (tmp_path / 'metrics.jsonl').write_text(f'{line}\n{{"kind": "dev", "step": 2, "rsum": 1}}\n')
  assert read_metrics(tmp_path) == [{'kind': 'dev', 'step': 2, 'rsum': 1}]


def test_json_without_nan_at_any_depth():
  content = {'a': [1.5, math.nan, (math.inf, None)], 'b': {'c': -math.inf, 'd': 'NaN'}}
  assert json.loads(to_json(content)) == {'a': [1.5, None, [None, None]], 'b': {'c': None, 'd': 'NaN'}}
