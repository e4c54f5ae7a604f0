"""Updates that are not finite change nothing, are counted, and end a training that gets no others."""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
from runs import assert_states_equal, reports

from hrem_jax.data.batch import Batch
from hrem_jax.errors import UserError
from hrem_jax.models.hrem import build_model, init_variables
from hrem_jax.retrieval.run import step_folders
from hrem_jax.sharding import data_mesh, replicate
from hrem_jax.training import loop
from hrem_jax.training import step as step_module
from hrem_jax.training.checkpoint import Checkpoints
from hrem_jax.training.guard import Guard, all_finite, choose, suspects
from hrem_jax.training.optimizer import Optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import jit_train_step, train_step

SIZE, WORDS, VOCABULARY = 6, 5, 29


@pytest.fixture(scope='module')
def parts():
  config = synthetic.tiny_config(pathlib.Path('unused'))
  config.model.bigru.vocab_size, config.model.interaction = VOCABULARY, 'none'
  model, optimizer = build_model(config.model), Optimizer(config.optimizer, steps_per_epoch=5)
  state = create_state(init_variables(model, jax.random.key(0), region_size=synthetic.REGION_SIZE), optimizer)
  rng = np.random.default_rng(0)
  batch = Batch(
    regions=jnp.asarray(rng.normal(size=(SIZE, 7, synthetic.REGION_SIZE)), jnp.float32),
    region_mask=jnp.ones((SIZE, 7), bool),
    tokens=jnp.asarray(rng.integers(VOCABULARY, size=(SIZE, WORDS))),
    word_mask=jnp.ones((SIZE, WORDS), bool),
    image_ids=jnp.arange(SIZE),
  )
  return config, model, optimizer, state, batch


@pytest.fixture(scope='module')
def update(parts):
  config, model, optimizer, _, _ = parts
  step = functools.partial(train_step, model=model, optimizer=optimizer, loss=config.loss, graph_active=False)
  return jax.jit(step)


def as_dict(state) -> dict:
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def plain(state, *, without=('step', 'skipped', 'skipped_in_a_row')) -> dict:
  """As it is stored, without the counts."""
  fields = jax.device_get({name: value for name, value in as_dict(state).items() if name not in without})
  return {'/'.join(map(str, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fields)}


def poisoned(batch: Batch, value: float = np.nan) -> Batch:
  return dataclasses.replace(batch, regions=batch.regions.at[2, 3, 1].set(value))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_changes_nothing_but_the_counts(parts, update, value):
  *_, state, batch = parts
  before, _ = update(state, batch, 3)
  after, metrics = update(before, poisoned(batch, value), 3)
  assert metrics['loss'] == 0  # among nothing but NaN no one has a negative
  assert_states_equal(plain(after), plain(before))
  assert (int(after.step), int(after.skipped), int(after.skipped_in_a_row)) == (2, 1, 1)
  assert (int(metrics['skipped']), int(metrics['skipped_in_a_row'])) == (1, 1)
  again, _ = update(after, poisoned(batch, value), 3)
  assert (int(again.step), int(again.skipped), int(again.skipped_in_a_row)) == (3, 2, 2)
  healed, metrics = update(again, batch, 3)
  assert np.isfinite(metrics['loss'])
  assert (int(healed.step), int(healed.skipped), int(healed.skipped_in_a_row)) == (4, 2, 0)
  for name, leaf in plain(healed).items():
    assert np.isfinite(leaf).all(), name
  assert int(healed.optimizer['encoders'][0].count) == 2  # Adam's bias correction counts updates, not steps


def test_an_update_that_is_skipped_still_has_other_random_numbers_next(parts, update):
  """Dropout of step 2 after a skipped step is that of step 2 of any training."""
  *_, state, batch = parts
  skipped, _ = update(state, poisoned(batch), 3)
  _, after_skip = update(skipped, batch, 3)
  _, at_step_1 = update(dataclasses.replace(state, step=jnp.asarray(1, jnp.int32)), batch, 3)
  _, at_step_0 = update(state, batch, 3)
  assert float(after_skip['loss']) == float(at_step_1['loss']) != float(at_step_0['loss'])


def test_an_embedding_that_is_not_finite_is_enough(parts, monkeypatch):
  """A loss and gradients of 0, as of a batch in which no one has a negative: weight decay alone would go on."""
  config, model, optimizer, state, batch = parts
  monkeypatch.setattr(step_module, 'total_loss', lambda *_: jnp.zeros(()))
  options = dict(model=model, optimizer=optimizer, loss=config.loss, graph_active=False)
  step = jax.jit(functools.partial(train_step, **options))
  fine, metrics = step(state, batch, 3)
  assert (float(metrics['gradient_norm']), int(fine.skipped)) == (0, 0)
  broken = jax.tree.map(lambda x: x, state.params)
  broken['text_encoder']['linear']['bias'] *= np.nan
  broken = dataclasses.replace(state, params=broken)
  after, metrics = step(broken, batch, 3)
  assert (float(metrics['gradient_norm']), int(after.skipped)) == (0, 1)
  assert_states_equal(plain(after), plain(broken))


def test_a_gradient_that_is_not_finite_is_enough(parts, monkeypatch):
  config, model, optimizer, state, batch = parts
  total = step_module.total_loss

  def with_a_cusp(terms, loss):
    value = total(terms, loss)
    return value + jnp.sqrt(value - jax.lax.stop_gradient(value))  # 0, with an infinite slope

  monkeypatch.setattr(step_module, 'total_loss', with_a_cusp)
  options = dict(model=model, optimizer=optimizer, loss=config.loss, graph_active=False)
  after, metrics = jax.jit(functools.partial(train_step, **options))(state, batch, 3)
  assert np.isfinite(metrics['loss'])
  assert not np.isfinite(metrics['gradient_norm'])
  assert_states_equal(plain(after), plain(state))
  assert int(after.skipped) == 1


def test_the_state_is_still_donated(parts):
  """All of the old state's memory becomes the new one's: choosing between both makes no copy."""
  config, model, optimizer, state, batch = parts
  mesh = data_mesh()
  options = dict(model=model, optimizer=optimizer, loss=config.loss, graph_active=False)
  compiled = jit_train_step(mesh, **options).lower(replicate(state, mesh), batch, np.uint32(0)).compile()
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  assert compiled.memory_analysis().alias_size_in_bytes >= size


def test_all_finite_and_choose():
  tree = {'a': jnp.arange(3), 'b': [jnp.ones((2, 3)), jnp.zeros(())]}
  assert bool(all_finite(tree))
  for value in (np.nan, np.inf, -np.inf):
    assert not bool(all_finite({**tree, 'c': jnp.asarray([1.0, value])}))
  other = jax.tree.map(lambda x: x + 1, tree)
  for condition, expected in ((True, tree), (False, other)):
    jax.tree.map(np.testing.assert_array_equal, choose(jnp.asarray(condition), tree, other), expected)


def test_the_guard_names_the_step_the_cause_and_the_images(parts):
  batch, said = parts[4], []
  ids = [f'photo{number}' for number in range(SIZE)]
  guard = Guard(9, lambda: '', say=said.append, image_ids=ids)
  good = {'loss': np.float32(1), 'skipped': 0, 'skipped_in_a_row': 0}
  bad = {'loss': np.float32(np.nan), 'skipped': 1, 'skipped_in_a_row': 1}
  guard.watch(1, good, batch)
  guard.watch(2, bad, dataclasses.replace(batch, regions=batch.regions.at[4, 0, 0].set(-1e30)))
  guard.watch(3, {**bad, 'loss': np.float32(2), 'skipped': 2}, batch)
  assert said == [
    "UPDATE SKIPPED, step 2: not finite was loss nan; values far outside the others have its images 'photo4' (up to "
    '1e+30)'
  ]
  guard.settle()
  assert guard.num_skipped == 2
  everyone = ', '.join(map(repr, ids))
  assert said[1] == (
    'UPDATE SKIPPED, step 3: not finite was an embedding or a BatchNorm statistic; none of its images stands out of '
    f'{everyone}'
  )
  padded = dataclasses.replace(  # what is no real region is nobody's value
    batch, regions=batch.regions.at[4, 0, 0].set(1e30), region_mask=batch.region_mask.at[4, 0].set(False)
  )
  assert suspects(padded, ids, shown=2) == "none of its images stands out of 'photo0', 'photo1' and 4 more"


def test_the_guard_looks_one_step_back():
  guard = Guard(2, lambda: 'the last good checkpoint is C')
  metrics = {'loss/base': np.float32(np.nan), 'loss/cross': np.float32(1), 'gradient_norm': np.float32(np.inf)}
  guard.watch(4, {**metrics, 'skipped_in_a_row': 1})
  guard.watch(5, {**metrics, 'skipped_in_a_row': 2})
  message = 'step 5: the last 2 updates were .* not finite was: loss/base nan, gradient_norm inf; the last .* C;'
  with pytest.raises(UserError, match=message):
    guard.watch(6, {**metrics, 'skipped_in_a_row': 0})
  guard.watch(7, {**metrics, 'skipped_in_a_row': 2})
  with pytest.raises(UserError, match='step 7'):
    guard.settle()
  guard.settle()  # what was looked at is done with


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  directory = tmp_path_factory.mktemp('guard')
  synthetic.write_data_set(directory)
  config = synthetic.tiny_config(directory)
  config.model.interaction, config.data.length_buckets = 'none', (12,)
  config.training.update(num_epochs=1, checkpoint_every_steps=4, log_every_steps=1, max_skipped_steps=3)
  return config


def train_poisoned(config, workdir, steps) -> None:
  """Trains; the batches of `steps`, counted from 0, hold a NaN."""
  update = loop.CompiledSteps.__call__

  def poisoning(self, state, batch):
    return update(self, state, poisoned(batch) if int(state.step) in steps else batch)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.CompiledSteps, '__call__', poisoning)
    loop.train(config, workdir)


def test_a_training_that_diverged_ends_at_the_same_step_however_often_it_is_started(config, tmp_path):
  """The third skipped update in a row is that of step 9; the checkpoint of step 8 holds the count of 2."""
  workdir = tmp_path / 'run'
  message = rf'^step 9: the last 3 updates were skipped .*; the last good checkpoint is {workdir}/checkpoints/8;'
  for _ in range(2):
    with pytest.raises(UserError, match=message):
      train_poisoned(config, workdir, range(6, 99))
    assert step_folders(workdir / 'checkpoints') == [8]
    stored = synthetic.state_on_disk(workdir, 8)
    assert (int(stored['skipped']), int(stored['skipped_in_a_row'])) == (2, 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(stored))


def test_a_few_bad_batches_are_survived_and_counted(config, tmp_path):
  """Two at a time are allowed; cut in two between them the run is the same."""
  train_poisoned(config, tmp_path / 'whole', (2, 3, 6, 7, 10))
  skipped = {report['step']: report['skipped'] for report in reports(tmp_path / 'whole') if report['kind'] == 'train'}
  assert skipped == {1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 4, 9: 4, 10: 4, 11: 5, 12: 5}
  more = config.copy_and_resolve_references()
  more.training.max_skipped_steps = 2  # may change between two starts
  with pytest.raises(UserError, match='step 4: the last 2 updates were skipped .*; there is no checkpoint yet'):
    train_poisoned(more, tmp_path / 'cut', (2, 3, 6, 7, 10))
  assert step_folders(tmp_path / 'cut' / 'checkpoints') == []
  with pytest.raises(UserError, match='step 11: the last 2'):
    train_poisoned(more, tmp_path / 'cut', (2, 6, 9, 10))
  assert step_folders(tmp_path / 'cut' / 'checkpoints') == [8]


def test_what_was_not_learnt_is_said(tmp_path, capsys):
  """One image with values so large that their squares are infinite: at the start, at each update, and at the end."""
  synthetic.write_data_set(tmp_path)
  path = tmp_path / 'tiny_precomp' / 'train_ims.npy'
  features = np.load(path)
  features[23, 2] = 1e30
  np.save(path, features)
  config = synthetic.tiny_config(tmp_path)
  config.model.interaction, config.data.length_buckets, config.data.drop_regions = 'none', (12,), 0.0
  config.training.update(num_epochs=1, log_every_steps=1)
  loop.train(config, tmp_path / 'run')
  said = capsys.readouterr()
  assert re.search(r"WARNING: .*train_ims.npy: image '23' of train has values up to 1e\+30, far outside", said.err)
  kept = [report for report in reports(tmp_path / 'run') if report['kind'] == 'train']
  counts = [0, *(report['skipped'] for report in kept)]
  steps = [step for step in range(1, 13) if counts[step] > counts[step - 1]]
  assert 1 < len(steps) < 12
  skipped = r"UPDATE SKIPPED, step (\d+): not finite was .*; values far .* its images '23' \(up to 1e\+30\)"
  assert list(map(int, re.findall(skipped, said.err))) == steps
  assert f'{len(steps)} of 12 updates were skipped' in said.err
  assert json.loads((tmp_path / 'run' / 'results.json').read_text())['skipped_updates'] == len(steps)
  assert f'({len(steps)} of its 12 updates were skipped)' in said.out
  for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines():
    json.loads(line, parse_constant=pytest.fail)  # NaN is no JSON


def test_parameters_that_are_not_finite_are_never_saved(parts, tmp_path):
  state = parts[3]
  broken = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.inf), state.params)
  message = 'step 0: the parameters are not finite and are not saved; there is no checkpoint yet'
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
    checkpoints.save(dataclasses.replace(state, params=broken), None, None)
  assert step_folders(tmp_path / 'checkpoints') == []
