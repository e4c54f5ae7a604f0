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
import steps
import synthetic
from runs import assert_states_equal, reports
from steps import adam

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import build_method, init_variables
from hrem_jax.retrieval.run import step_folders
from hrem_jax.sharding import data_mesh, replicate
from hrem_jax.training import loop
from hrem_jax.training.checkpoint import Checkpoints
from hrem_jax.training.guard import Guard, all_finite, choose, suspects
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import create_state
from hrem_jax.training.step import jit_train_step, train_step

SIZE, WORDS, VOCABULARY = 6, 5, 29


@pytest.fixture(scope='module')
def parts():
  config = synthetic.tiny_config(pathlib.Path('unused'))
  config.model.bigru.vocab_size, config.hrem.interaction = VOCABULARY, 'none'
  method = build_method(config)
  optimizer = make_optimizer(method, config, 5)
  state = create_state(init_variables(method, config, jax.random.key(0)), optimizer)
  rng = np.random.default_rng(0)
  regions = jnp.asarray(rng.normal(size=(SIZE, 7, synthetic.REGION_SIZE)), jnp.float32)
  tokens = jnp.asarray(rng.integers(VOCABULARY, size=(SIZE, WORDS)))
  batch = Batch(
    ImageInputs(regions, jnp.ones((SIZE, 7), bool)), TextInputs(tokens, jnp.ones((SIZE, WORDS), bool)), jnp.arange(SIZE)
  )
  return method, optimizer, state, batch


@pytest.fixture(scope='module')
def update(parts):
  method, optimizer, _, _ = parts
  step = functools.partial(train_step, **steps.options(method, optimizer, graph=False))
  return jax.jit(step)


def as_dict(state) -> dict:
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def plain(state, *, without=('step', 'skipped', 'skipped_in_a_row')) -> dict:
  """As it is stored, without the counts."""
  fields = jax.device_get({name: value for name, value in as_dict(state).items() if name not in without})
  return {'/'.join(map(str, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fields)}


def change_total(monkeypatch, method, change) -> None:
  """The objective of a method, changed, its terms as one."""
  losses = type(method).losses

  def changed(self, batch, **options):
    found = losses(self, batch, **options)
    total = sum(found.weights[name] * value for name, value in found.terms.items())
    return found._replace(terms={'base': change(total)}, weights={'base': 1.0})

  monkeypatch.setattr(type(method), 'losses', changed)


def poisoned(batch: Batch, value: float = np.nan) -> Batch:
  images = dataclasses.replace(batch.images, regions=batch.images.regions.at[2, 3, 1].set(value))
  return dataclasses.replace(batch, images=images)


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
  assert int(adam(healed, 'rest').count) == 2  # Adam's bias correction counts updates, not steps


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
  method, optimizer, state, batch = parts
  change_total(monkeypatch, method, jnp.zeros_like)
  options = steps.options(method, optimizer, graph=False)
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
  method, optimizer, state, batch = parts
  # 0, with an infinite slope
  change_total(monkeypatch, method, lambda total: total + jnp.sqrt(total - jax.lax.stop_gradient(total)))
  options = steps.options(method, optimizer, graph=False)
  after, metrics = jax.jit(functools.partial(train_step, **options))(state, batch, 3)
  assert np.isfinite(metrics['loss'])
  assert not np.isfinite(metrics['gradient_norm'])
  assert_states_equal(plain(after), plain(state))
  assert int(after.skipped) == 1


def test_the_state_is_still_donated(parts):
  """All of the old state's memory becomes the new one's: choosing between both makes no copy."""
  method, optimizer, state, batch = parts
  mesh = data_mesh()
  options = steps.options(method, optimizer, graph=False)
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


def far_off(batch: Batch) -> Batch:
  images = batch.images
  return batch.replace(images=images.replace(regions=images.regions.at[4, 0, 0].set(-1e30)))


def test_the_guard_names_the_step_the_cause_and_the_images(parts):
  batch, said = parts[3], []
  ids = [f'photo{number}' for number in range(SIZE)]
  guard = Guard(9, lambda: '', say=said.append, image_ids=ids)
  good = {'loss': np.float32(1), 'skipped': 0, 'skipped_in_a_row': 0}
  bad = {'loss': np.float32(np.nan), 'skipped': 1, 'skipped_in_a_row': 1}
  guard.watch(1, good, batch)
  guard.watch(2, bad, far_off(batch))
  guard.watch(3, {**bad, 'loss': np.float32(2), 'skipped': 2}, batch)
  assert said == [
    "UPDATE SKIPPED, step 2: not finite was loss nan; values far outside the others have its images 'photo4' (up to "
    '1e+30)'
  ]
  guard.settle()
  assert guard.num_skipped == 2
  everyone = ', '.join(map(repr, ids))
  assert said[1] == (
    'UPDATE SKIPPED, step 3: not finite was what the method watches or keeps beside its parameters; none of its images '
    'stands out of '
    f'{everyone}'
  )
  images = batch.images
  images = images.replace(regions=images.regions.at[4, 0, 0].set(1e30), mask=images.mask.at[4, 0].set(False))
  padded = batch.replace(images=images)  # what is no real region is nobody's value
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
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
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
  config.hrem.interaction, config.data.length_buckets, config.data.drop_regions = 'none', (12,), 0.0
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
  state = parts[2]
  broken = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.inf), state.params)
  message = 'step 0: the parameters are not finite and are not saved; there is no checkpoint yet'
  with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
    checkpoints.save(dataclasses.replace(state, params=broken), None, None)
  assert step_folders(tmp_path / 'checkpoints') == []
