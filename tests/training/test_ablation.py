"""Variants and seeds one after the other, going on where it stopped, and the table."""

import json
import math
import statistics

import pytest
import synthetic

from hrem_jax.errors import UserError
from hrem_jax.training import ablation
from hrem_jax.training.ablation import Row, ablate, difference, format_rows, read_rows


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  directory = tmp_path_factory.mktemp('ablation')
  synthetic.write_data_set(directory)
  return synthetic.tiny_config(directory)


@pytest.fixture
def trainings(monkeypatch):
  """Stands for the training: a run with random parameters, and a list of what was asked for."""
  asked = []

  def train(config, workdir):
    asked.append((config.hrem.interaction, config.training.seed))
    synthetic.write_run(config, workdir)

  monkeypatch.setattr(ablation.loop, 'train', train)
  monkeypatch.setattr(ablation.jax, 'clear_caches', lambda: None)  # programs that other tests need, too
  return asked


def test_every_variant_with_every_seed_once(config, tmp_path, trainings):
  variants = ['no_instance_level', 'fusion', 'standalone', 'full']
  rows = ablate(config, variants, num_seeds=2, output=tmp_path)
  assert trainings == [(kind, seed) for seed in (0, 1) for kind in ('none', 'fusion', 'standalone')]
  assert [(row.variant, row.seeds) for row in rows] == [(name, [0, 1]) for name in variants]
  table = json.loads((tmp_path / 'table.json').read_text())
  for row, record in zip(rows, table, strict=True):
    runs = [tmp_path / row.variant / f'seed_{seed}' / 'results.json' for seed in (0, 1)]
    scores = [json.loads(path.read_text())['metrics']['rsum'] for path in runs]
    assert record['rsum'] == {'mean': statistics.fmean(scores), 'spread': statistics.stdev(scores), 'values': scores}
  assert (tmp_path / 'table.md').read_text() == format_rows(rows, 'hrem')
  assert {record['selected_on'] for record in table} == {'dev'}

  again = ablate(config, variants, num_seeds=3, output=tmp_path)  # one seed more: only that one is trained
  assert trainings[6:] == [(kind, 2) for kind in ('none', 'fusion', 'standalone')]
  assert again[0].figures['rsum'][:2] == rows[0].figures['rsum']


def test_sizes_that_the_data_decides(config, tmp_path, trainings):
  config = config.copy_and_resolve_references()
  config.model.region_size = 0
  for num_seeds in (1, 2):  # begun, and gone on with
    ablate(config, ['no_instance_level'], num_seeds=num_seeds, output=tmp_path)
  assert trainings == [('none', 0), ('none', 1)]


def test_a_stopped_series_goes_on(config, tmp_path, trainings, monkeypatch):
  train = ablation.loop.train

  def dying(config, workdir):
    if config.hrem.interaction == 'standalone':
      raise KeyboardInterrupt
    train(config, workdir)

  monkeypatch.setattr(ablation.loop, 'train', dying)
  with pytest.raises(KeyboardInterrupt):
    ablate(config, ['fusion', 'standalone'], num_seeds=1, output=tmp_path)
  assert [record['variant'] for record in json.loads((tmp_path / 'table.json').read_text())] == ['fusion']
  monkeypatch.setattr(ablation.loop, 'train', train)
  ablate(config, ['fusion', 'standalone'], num_seeds=1, output=tmp_path)
  assert trainings == [('fusion', 0), ('standalone', 0)]


def test_mistakes_are_found_before_anything_is_trained(config, tmp_path, trainings):
  for variants, message in (
    (['fusion', 'fussion'], "variant 'fussion' is unknown"),
    (['fusion', 'hrem.num_heads=5'], 'not divisible by config.hrem.num_heads'),
    (['fusion', 'full'], "variant 'full' is the mean of fusion and standalone: name them too"),
  ):
    with pytest.raises(UserError, match=message):
      ablate(config, variants, num_seeds=1, output=tmp_path / 'out')
  for variants, num_seeds in (([], 1), (['fusion'], 0), (['fusion', 'fusion'], 1)):
    with pytest.raises(UserError, match='expected different variants and at least one seed'):
      ablate(config, variants, num_seeds=num_seeds, output=tmp_path / 'out')
  assert not trainings
  assert not (tmp_path / 'out').exists()


def test_another_budget_in_the_same_folder_is_refused(config, tmp_path, trainings):
  ablate(config, ['fusion'], num_seeds=1, output=tmp_path)
  changed = config.copy_and_resolve_references()
  changed.loss.margin, changed.training.num_epochs = 0.3, 7
  with pytest.raises(UserError, match=r'loss.margin 0.2 -> 0.3; training.num_epochs 3 -> 7'):
    ablate(changed, ['fusion'], num_seeds=1, output=tmp_path)


def test_without_its_data_nothing_is_written(config, tmp_path, trainings):
  changed = config.copy_and_resolve_references()
  changed.data.directory = str(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='nowhere/tiny_precomp: train_ims.npy and train_caps.txt not found'):
    ablate(changed, ['fusion'], num_seeds=1, output=tmp_path / 'out')
  with pytest.raises(UserError, match='features of size 13, expected config.model.region_size=17'):
    ablate(config, ['fusion', 'model.region_size=17'], num_seeds=1, output=tmp_path / 'out')
  with pytest.raises(UserError, match='testall_ims.npy and testall_caps.txt not found'):
    ablate(config, ['fusion', 'evaluation.test_split=testall'], num_seeds=1, output=tmp_path / 'out')
  assert not trainings
  assert not (tmp_path / 'out').exists()


def test_what_is_finished_is_read_without_data(config, tmp_path, trainings):
  rows = ablate(config, ['fusion'], num_seeds=1, output=tmp_path)
  changed = config.copy_and_resolve_references()
  changed.data.directory = str(tmp_path / 'nowhere')
  assert ablate(changed, ['fusion'], num_seeds=1, output=tmp_path) == rows
  with pytest.raises(UserError, match='nowhere/tiny_precomp: train_ims.npy'):
    ablate(changed, ['fusion', 'standalone'], num_seeds=1, output=tmp_path)
  assert len(trainings) == 1


def row(variant: str, scores: list[float]) -> Row:
  return Row(variant, list(range(len(scores))), dict.fromkeys(ablation.COLUMNS, scores), 'dev')


def test_noise_by_hand():
  """Means 10 and 14, standard deviations 1 and 2 over three seeds: 2 sqrt(1/3 + 4/3) = 2.58."""
  reference, other = row('no_instance_level', [9.0, 10.0, 11.0]), row('fusion', [12.0, 14.0, 16.0])
  assert difference(other, reference) == pytest.approx((4.0, 2 * math.sqrt(5 / 3)))
  lines = format_rows([reference, other, row('full', [10.5, 9.5, 11.0])], 'hrem').splitlines()
  assert lines[2].endswith('| 10.0 ± 1.0 |  | 80.1 94.8 60.9 85.3 |')
  assert lines[3].startswith('| Fusion, everything on (`fusion`) | 3 | 14.0 ± 2.0 |')
  assert lines[3].endswith('| +4.0 [2.6] | 83.3 96.0 63.5 87.1 |')
  assert '+0.3 [1.5] within noise' in lines[4]
  assert 'checkpoints selected on dev' in lines[-1]
  assert {line.count('|') for line in lines[:5]} == {10}


def test_one_seed_claims_no_noise():
  assert difference(row('fusion', [3.0]), row('standalone', [1.0])) == (2.0, None)
  assert '±' not in format_rows([row('fusion', [3.0])], 'hrem').splitlines()[2]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"metrics": {"rsum": 1}, "select_on": "dev"}', 'no i2t/r1 among the metrics'),
    ('{"metrics": {"rsum": "high"}, "select_on": "dev"}', 'no metrics in it'),
    ('{"metrics": {"rsum": NaN}, "select_on": "dev"}', 'no metrics in it'),
    ('{"metrics": {"rsum": true}, "select_on": "dev"}', 'no metrics in it'),
    ('{"metrics": {"rsum": 1}, "members": 3}', 'no metrics in it'),
    ('{"metrics": {"rsum": 1}, "members": [3]}', 'no metrics in it'),
  ],
)
def test_results_that_are_none_are_named(tmp_path, content, message):
  path = tmp_path / 'fusion' / 'seed_0' / 'results.json'
  path.parent.mkdir(parents=True)
  path.write_text(content)
  with pytest.raises(UserError, match=f'{path}: {message}'):
    read_rows(tmp_path, ['fusion'], [0])
