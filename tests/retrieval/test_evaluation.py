"""Runs on their test split: one with chance beside it, several as the mean of their similarity matrices."""

import json

import numpy as np
import oracle_ranking
import pytest
import synthetic

from hrem_jax.errors import UserError
from hrem_jax.retrieval.evaluation import average, evaluate_best, evaluate_ensemble, load_member
from hrem_jax.retrieval.protocols import protocol_metrics
from hrem_jax.retrieval.scores import DotScores


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three runs that differ in seed, size and text encoder, with random parameters."""
  folder = tmp_path_factory.mktemp('ensemble')
  synthetic.write_data_set(folder / 'data')
  for seed, (name, settings) in enumerate(
    {'a': {}, 'b': {'model.embedding_size': 24, 'hrem.interaction': 'standalone'}, 'c': {'model.text': 'bert'}}.items()
  ):
    config = synthetic.tiny_config(folder / 'data')
    config.training.seed = seed
    config.update_from_flattened_dict(settings)
    config.model.bert.update(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24, max_positions=32)
    synthetic.write_run(config, folder / name)
  return folder


@pytest.mark.parametrize('names', ['ab', 'abc'])
def test_the_ensemble_is_the_mean_of_the_members_matrices(folder, names):
  members = [load_member(folder / name) for name in names]
  embeddings = [(member.scores.images.astype(np.float64), member.scores.texts.astype(np.float64)) for member in members]
  similarity = sum(images @ texts.T for images, texts in embeddings)
  expected = oracle_ranking.metrics_of(similarity / len(members), members[0].split.owner)
  found = average(members)
  assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-6)
  assert any(found[key] != average([members[0]])[key] for key in found)


def test_each_member_and_the_ensemble_are_reported(folder, tmp_path, capsys):
  output = tmp_path / 'full.json'
  metrics = evaluate_ensemble([folder / 'a', folder / 'b'], output=output)
  results = json.loads(output.read_text())
  assert results['metrics'] == metrics
  for name, member in zip('ab', results['members'], strict=True):
    alone = json.loads((folder / name / 'results.json').read_text())
    assert member['metrics'] == alone['metrics']
    assert (member['seed'], member['select_on']) == ('ab'.index(name), 'dev')
  printed = capsys.readouterr().out
  assert printed.count('Image to text:') == 3
  assert 'the mean of 2 similarity matrices' in printed


def test_guessing_stands_below_the_table(folder, capsys):
  evaluate_best(folder / 'a')
  member, results = load_member(folder / 'a'), json.loads((folder / 'a' / 'results.json').read_text())
  alike = [np.zeros((count, 1), np.float32) for count in (13, len(member.split.owner))]
  assert results['chance'] == protocol_metrics(DotScores(*alike), member.split.owner, ties='expected')
  # 13 images: each is first, among the first 5, among the first 10 with this probability.
  assert [results['chance'][f't2i/r{k}'] for k in (1, 5, 10)] == pytest.approx([100 * k / 13 for k in (1, 5, 10)])
  assert f'by chance:{results["chance"]["rsum"]:12.1f}' in capsys.readouterr().out


def test_selection_on_the_reported_split_is_printed(folder, capsys):
  config = synthetic.tiny_config(folder / 'data')
  config.evaluation.select_on = 'test'
  synthetic.write_run(config, folder / 'on_test')
  evaluate_best(folder / 'on_test')
  assert 'selected on test (the split that is reported: figures are higher' in capsys.readouterr().out
  assert json.loads((folder / 'on_test' / 'results.json').read_text())['select_on'] == 'test'
  # A configuration that only says where the data is cannot change what was selected on.
  assert (
    load_member(folder / 'on_test', synthetic.tiny_config(folder / 'data')).run.config.evaluation.select_on == 'test'
  )


def test_features_of_another_size_are_named(folder, tmp_path):
  config = synthetic.tiny_config(tmp_path)
  synthetic.write_data_set(tmp_path)
  path = tmp_path / 'tiny_precomp' / 'test_ims.npy'
  np.save(path, np.load(path)[..., :-2])
  with pytest.raises(UserError, match=r'test_ims.npy: features of size 11, .*a was trained on 13'):
    evaluate_best(folder / 'a', config)


def test_data_elsewhere(folder, tmp_path):
  synthetic.write_data_set(tmp_path)
  synthetic.write_split(tmp_path / 'tiny_precomp', 'test', 11, seed=5)
  elsewhere = load_member(folder / 'a', synthetic.tiny_config(tmp_path / 'nowhere'), data=tmp_path)
  other = load_member(folder / 'b', data=tmp_path)
  assert elsewhere.split.num_images == elsewhere.scores.shape[0] == other.scores.shape[0] == 11
  assert elsewhere.run.config.data.directory == str(tmp_path)
  assert evaluate_best(folder / 'a', data=str(tmp_path))[1] == average([elsewhere])
  assert evaluate_ensemble([folder / 'a', folder / 'b'], data=tmp_path) == average([elsewhere, other])
  assert evaluate_best(folder / 'a')[1] != average([elsewhere])  # and puts results.json back


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda data: synthetic.write_split(data, 'test', 11, seed=3), '13 and 11 images'),
    (
      lambda data: synthetic.write_split(data, 'test', 13, seed=4),
      r"caption 0 is '.*' in the first, '.*' in the second",
    ),
  ],
  ids=['fewer', 'others'],
)
def test_members_of_different_data_are_refused(folder, tmp_path, change, message):
  config = synthetic.tiny_config(tmp_path)
  synthetic.write_data_set(tmp_path)
  change(tmp_path / 'tiny_precomp')
  synthetic.write_run(config, tmp_path / 'other')
  with pytest.raises(UserError, match=f'were not made for the same test split: {message}'):
    evaluate_ensemble([folder / 'a', tmp_path / 'other'], output=tmp_path / 'full.json')
  assert not (tmp_path / 'full.json').exists()
