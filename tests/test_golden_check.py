"""The golden check as a tool: what it says of files, and its exit status."""

import pathlib
import re

import golden_check
import numpy as np
import pytest
from golden_checks.golden_file import GoldenFile

HREM_FILES = [
  'encoder_train',
  'relations_ragged_k4',
  'loss_hinge',
  'loss_distance_weighted',
  'metrics',
  'weights',
]
SLOW_HREM_FILES = [
  'encoder_full',
  'encoder_ragged',
  'relations_full_k10',
  'relations_full_k4',
  'objective_coco_trip_weight15',
  'objective_trip',
  'objective_trip_nocross_unnormalised',
  'objective_vse',
  'trajectory_vse',
]


def verdicts(method: str, path: pathlib.Path, dtype) -> dict[str, str]:
  return {line.name: line.verdict for line in golden_check.check_file(method, path, dtype)}


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [np.float64, np.float32])
@pytest.mark.parametrize(
  ('method', 'name'),
  [('scan', 'scan_small'), ('gpo', 'gpo_bigru'), ('gpo', 'gpo_bert'), ('gpo', 'gpo_bigru_trajectory')],
)
def test_every_array_of_a_public_program_is_used_or_equal(golden, method, name, dtype):
  found = verdicts(method, golden / f'{name}.npz', dtype)
  assert set(found.values()) <= {'equal', 'used', 'not ours'}, found
  is_left_open = re.compile(r'public_padding/|.*mlp\.bns\.1\.')
  assert all(is_left_open.match(name) for name, verdict in found.items() if verdict == 'not ours')
  assert sum(verdict == 'equal' for verdict in found.values()) > 30


@pytest.mark.parametrize(
  ('name', 'dtype'),
  [
    *((name, np.float64) for name in HREM_FILES),
    *(pytest.param(name, np.float64, marks=pytest.mark.slow) for name in SLOW_HREM_FILES),
    *(pytest.param(name, np.float32, marks=pytest.mark.slow) for name in (*HREM_FILES, *SLOW_HREM_FILES)),
  ],
)
def test_every_array_of_the_release_is_used_or_equal(golden, name, dtype):
  found = verdicts('hrem', golden / f'{name}.npz', dtype)
  assert set(found.values()) <= {'equal', 'used', 'not ours'}, found
  assert 'equal' in found.values() or name == 'weights'


def test_what_is_wrong_or_not_asked_for_is_said_and_fails(golden, tmp_path, monkeypatch, capsys):
  """Renamed: what a file holds follows from its keys."""
  (tmp_path / 'weights.npz').write_bytes((golden / 'weights.npz').read_bytes())
  arrays = dict(np.load(golden / 'relations_ragged_k4.npz'))
  arrays['t2i_mean'] = arrays['t2i_mean'] + np.eye(12) * 1e-5
  np.savez(tmp_path / 'some.npz', **arrays, more=np.zeros(3))
  monkeypatch.setattr('sys.argv', ['golden_check.py', 'hrem', str(tmp_path / 'some.npz')])
  assert golden_check.main() == 1
  said = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
  assert said['t2i_mean'] == ['1.0e-05', 'short']
  assert said['i2t_mean'][1] == 'equal'
  assert said['more'] == ['unknown']
  assert said['img_regions'] == ['used']
  monkeypatch.setattr('sys.argv', ['golden_check.py', 'hrem', str(golden / 'weights.npz')])
  assert golden_check.main() == 0


def test_errors_are_relative_to_one_or_the_largest_entry_and_of_real_positions_only(tmp_path):
  np.savez(tmp_path / 'some.npz', small=np.full((2, 3), 1e-9), large=np.full(3, 1e3), infinite=np.array([-np.inf, 1.0]))
  file = GoldenFile(tmp_path / 'some.npz')
  file.compare('small', [[2e-9] * 3, [np.nan] * 3], real=np.array([True, False]))
  file.compare('large', [1e3 + 2e-3] * 3)
  file.compare('infinite', [-np.inf, 1.0])
  found = {line.name: line for line in file.lines()}
  assert found['small'].error == pytest.approx(1e-9)
  assert found['large'].error == pytest.approx(2e-6)
  assert [found[name].verdict for name in ('small', 'large', 'infinite')] == ['equal', 'short', 'equal']
  for wrong in ([[2e-9] * 3], np.full((2, 3), np.nan)):  # another shape, not a number
    file = GoldenFile(tmp_path / 'some.npz')
    file.compare('small', wrong)
    assert file.lines()[0].verdict == 'short'
  file = GoldenFile(tmp_path / 'some.npz')
  file.compare_gradient('small', np.full((2, 3), 1.1e-9))  # no entry is large: all of them count
  assert file.lines()[0].error == pytest.approx(0.1)
