"""Own pictures on pretrained towers: from their files over training to the table, frozen and end to end."""

import importlib.util
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import small_pictures
from numpy.testing import assert_allclose
from PIL import Image

import hrem_jax
from hrem_jax import cli
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError
from hrem_jax.ports.towers import open_towers
from hrem_jax.report.page import write_report
from hrem_jax.retrieval.evaluation import evaluate_best, score_member
from hrem_jax.retrieval.protocols import protocol_metrics
from hrem_jax.retrieval.run import load_best
from hrem_jax.retrieval.scores import DotScores
from hrem_jax.training.loop import train
from hrem_jax.training.setup import plan

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
# The tiny towers: CLIP's frozen with their features, SigLIP's with their pixels and trained. The files say the sizes.
KINDS = {
  'zero_shot': dict(tower='clip', name='features'),
  'end_to_end': dict(tower='siglip', name='pixels'),
}
SENTENCES = ['A dog  runs.', "The man's RED dog, and a cat!", 'dogs', 'two cats sit']


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('own')
  photos = small_pictures.make_folder(folder / 'photos', 24, captions=0)
  for number, path in enumerate(sorted(photos.glob('*.jpg'))):
    path.with_suffix('.txt').write_text(f'{SENTENCES[number % 4]} {number}\n{SENTENCES[number % 3]}\n')
  for tower in ('clip', 'siglip', 'vit'):
    shutil.copytree(pathlib.Path(__file__).parents[1] / 'golden' / 'towers' / tower, folder / tower)
  for kind in KINDS.values():
    extract(folder, kind['tower'], kind['name'])
  return folder


def extract(folder: pathlib.Path, tower: str, name: str) -> None:
  options = ['--pixels'] if name == 'pixels' else []
  paths = ['--images', f'{folder}/photos', '--encoder', f'{folder}/{tower}', '--output', f'{folder}/data']
  cli.run(['extract', *paths, '--name', name, '--pictures-size=0', '--dev=0.2', '--test=0.3', *options])


def load_config(folder: pathlib.Path, kind: str):
  """The configuration that people use, made small."""
  spec = importlib.util.spec_from_file_location(kind, CONFIGS / f'own_pictures_{kind}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config, settings = module.get_config(), dict(KINDS[kind])
  weights = str(folder / settings.pop('tower'))
  config.data.update(
    directory=str(folder / 'data'), name=settings.pop('name'), cache=str(folder / 'cache'), length_buckets=(11,)
  )
  config.model.update(**settings, weights=weights, remat=False)
  config.hrem.update(num_heads=7, interaction='none', image_graph=False, text_graph=False)
  if kind == 'end_to_end':
    config.model.image_weights = weights
  config.optimizer.learning_rate = 0.01
  config.training.update(batch_size=8, num_epochs=2)
  return config


@pytest.fixture(scope='module', params=KINDS)
def kind(request) -> str:
  return request.param


@pytest.fixture(scope='module')
def run(folder, kind) -> pathlib.Path:
  train(load_config(folder, kind), folder / kind)
  return folder / kind


def plain(folder: pathlib.Path, kind: str, split) -> tuple[np.ndarray, np.ndarray]:
  """What the towers make of the pictures and captions of a split, without anything of the training."""
  towers = open_towers(folder / KINDS[kind]['tower'])
  pictures = [Image.open(folder / 'photos' / f'{name}.jpg') for name in split.ids]
  pixels = np.stack([towers.vision.preprocessing(picture) for picture in pictures])
  tokens, _ = towers.text.tokenize(split.captions)
  images = jax.jit(towers.vision.module.apply)(towers.vision.variables, pixels).embedding
  return np.asarray(images), np.asarray(jax.jit(towers.text.module.apply)(towers.text.variables, tokens).embedding)


def newest(run: pathlib.Path) -> int:
  return max(int(path.name) for path in (run / 'checkpoints').iterdir() if path.name.isdecimal())


def splits(folder: pathlib.Path, kind: str) -> dict:
  data = folder / 'data' / f'{KINDS[kind]["name"]}_precomp'
  return {name: load_split(data, name) for name in ('dev', 'test')}


def test_step_0_is_zero_shot_and_a_candidate(folder, kind, run):
  reports = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  dev = {report['step']: report for report in reports if report['kind'] == 'dev'}
  split = splits(folder, kind)['dev']
  expected = protocol_metrics(DotScores(*plain(folder, kind, split)), split.owner)
  assert {key: dev[0][key] for key in expected} == pytest.approx(expected, abs=1e-4)
  assert max(dev) == newest(run) > 0
  chosen = json.loads((run / 'results.json').read_text())['step']
  assert dev[chosen]['rsum'] == max(report['rsum'] for report in dev.values())


def test_the_zero_shot_row_stands_in_the_table(folder, kind, run, capsys):
  evaluate_best(run)
  split, printed = splits(folder, kind)['test'], capsys.readouterr().out
  results = json.loads((run / 'results.json').read_text())
  assert results['zero_shot'] == pytest.approx(
    protocol_metrics(DotScores(*plain(folder, kind, split)), split.owner), abs=1e-4
  )
  rows = [line.split() for line in printed.splitlines() if line.startswith('zero-shot:')]
  directions = [[results['zero_shot'][f'{way}/{key}'] for key in ('r1', 'r5', 'r10')] for way in ('i2t', 't2i')]
  assert [row[1:4] for row in rows[:2]] == [[f'{value:.1f}' for value in values] for values in directions]
  assert rows[2][1:] == [f'{results["zero_shot"]["rsum"]:.1f}']


def test_training_changes_the_embeddings_and_not_what_it_began_with(folder, kind, run):
  member = score_member(run, load_best(run, step=newest(run)))
  images, texts = plain(folder, kind, member.split)
  assert_allclose(member.zero_shot.images, images, atol=2e-6)
  assert_allclose(member.zero_shot.texts, texts, atol=2e-6)
  assert abs(member.scores.images - images).max() > 1e-3
  assert abs(member.scores.texts - texts).max() > 1e-3


def test_frozen_towers_stay_and_others_learn(folder, kind, run):
  _, variables, *_ = load_best(run, step=newest(run))
  towers = open_towers(folder / KINDS[kind]['tower'])
  text = variables['params']['text_encoder']['language_model']
  same = jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), text, towers.text.variables['params'])
  assert all(jax.tree.leaves(same)) == (kind == 'zero_shot')
  if kind == 'end_to_end':
    image = variables['params']['image_encoder']['tower']
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != b).any(), image, towers.vision.variables['params'])
    assert all(jax.tree.leaves(moved)[:3])


def test_a_restored_run_encodes_images_and_texts(folder, kind, run):
  matcher, split = hrem_jax.restore(run), splits(folder, kind)['test']
  member = score_member(run, load_best(run))
  regions, mask = split.features.rows(np.arange(split.num_images))
  more = {} if kind == 'end_to_end' else {'embeddings': split.features.extra('embeddings', np.arange(split.num_images))}
  assert_allclose(matcher.encode_images(regions, mask, **more), member.scores.images, atol=1e-6)
  assert_allclose(matcher.encode_texts(split.captions), member.scores.texts, atol=1e-6)
  assert matcher.evaluate(split)['rsum'] == pytest.approx(
    json.loads((run / 'results.json').read_text())['metrics']['rsum']
  )
  if kind == 'end_to_end':
    assert_allclose(matcher.encode_images(regions.astype(np.uint8)), member.scores.images, atol=1e-6)
    with pytest.raises(UserError, match='image 0 has 5 regions, expected the 16 patches of a picture'):
      matcher.encode_images([regions[0, :5]])
    with pytest.raises(UserError, match='this one takes none'):
      matcher.encode_images(regions, embeddings=member.scores.images)
  else:
    for wrong, message in (
      (None, r'begins with what the encoder of its features says of an image: expected .* \({0}, 7\)'),
      (member.scores.images[:2], r'embeddings are float32 \(2, 7\), expected floats: .* \({0}, 7\)'),
    ):
      with pytest.raises(UserError, match=message.format(split.num_images)):
        matcher.encode_images(regions, embeddings=wrong)


def test_the_report_shows_both(folder, kind, run):
  page = write_report(run).read_text('utf-8')
  assert page.count('<tr class="start">') == 3
  assert 'Zero-shot: the pretrained encoders, before this training.' in page


def test_trained_towers_whose_folder_is_gone_have_no_row(folder, kind, run, capsys):
  moved = folder / 'moved'
  (folder / KINDS[kind]['tower']).rename(moved)
  try:
    evaluate_best(run)
  finally:
    moved.rename(folder / KINDS[kind]['tower'])
  captured = capsys.readouterr()
  assert ('zero-shot:' in captured.out) == (kind == 'zero_shot')  # frozen towers are in the checkpoint
  assert ('without training is not shown' in captured.err) == (kind == 'end_to_end')


@pytest.mark.parametrize(
  ('kind', 'settings', 'message'),
  [
    ('zero_shot', {'data.name': 'pixels'}, r'other features than .*/clip \(weights_sha256'),
    ('end_to_end', {'data.name': 'features'}, r'other features than .* \(encoder is "pixels"'),
    ('zero_shot', {'model.weights': 'siglip'}, r'other features than those of .*/siglip \(weights_sha256'),
    (
      'zero_shot',
      {'model.embedding_size': 14},
      r'embeddings of texts of size 7, expected config.model.embedding_size=14',
    ),
    ('zero_shot', {'hrem.num_heads': 2}, r'embedding_size \(7\) is not divisible by config.hrem.num_heads \(2\)'),
    ('zero_shot', {'model.region_size': 13}, r'features of size 14, expected config.model.region_size=13'),
    ('end_to_end', {'model.embedding_size': 7}, r'embeddings of pictures of size 14, expected config.model.embedding'),
    (
      'end_to_end',
      {'model.image_weights': 'clip'},
      r'image_weights is .*clip., expected .*siglip. as config.model.weights',
    ),
    (
      'zero_shot',
      {'data.length_buckets': (8, 12)},
      r'length_buckets ends with 12, expected at most 11: so many positions',
    ),
    ('zero_shot', {'model.weights': 'nothing'}, r"config.model.weights='.*/nothing': no such folder"),
    (
      'end_to_end',
      {'model.image_weights': 'vit', 'model.weights': 'vit'},
      r'vit: has no embeddings of pictures that can be compared with those of texts',
    ),
  ],
)
def test_what_does_not_fit_is_refused(folder, kind, settings, message):
  config = load_config(folder, kind)
  for key, value in settings.items():
    if key.endswith('weights'):
      value = str(folder / value)
    config.update_from_flattened_dict({key: value})
  with pytest.raises(UserError, match=message):
    plan(config)


def test_features_without_embeddings_are_refused(folder):
  config = load_config(folder, 'zero_shot')
  shutil.copytree(folder / 'data' / 'features_precomp', folder / 'data' / 'bare_precomp')
  (folder / 'data' / 'bare_precomp' / 'dev_embeddings.npy').unlink()
  config.data.name = 'bare'
  with pytest.raises(UserError, match=r'dev_embeddings.npy: no such file; .* whose embeddings can be compared'):
    plan(config)
