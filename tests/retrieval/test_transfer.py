"""A run on another data set, and what the section `evaluation` asks for beside recall."""

import importlib.util
import json

import numpy as np
import pytest
import synthetic

from hrem_jax.cli import run
from hrem_jax.data.precomputed import Split, load_split
from hrem_jax.errors import UserError
from hrem_jax.report.tables import results_table
from hrem_jax.retrieval.coco_judgements import coco_caption_ids, coco_image_ids, judgements
from hrem_jax.retrieval.evaluation import evaluate_best
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.plausible import plausible_metrics, read_class_labels
from hrem_jax.retrieval.protocols import JUDGED, format_table, protocol_metrics
from hrem_jax.retrieval.run import load_best
from hrem_jax.retrieval.scores import DotScores
from hrem_jax.retrieval.split_protocols import chance_on_split, check_split, evaluate_split
from hrem_jax.retrieval.transfer import transfer

needs_package = pytest.mark.skipif(not importlib.util.find_spec('eccv_caption'), reason='needs eccv-caption')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A run, and a data set `other` that it was not trained on."""
  folder = tmp_path_factory.mktemp('transfer')
  synthetic.write_data_set(folder / 'data')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  synthetic.write_split(folder / 'elsewhere' / 'other_precomp', 'testall', 17, seed=9)
  return folder


def write_labels(folder, num_images=17):
  classes = ['dog', 'cat,dog', '']
  (folder / 'labels.tsv').write_text(''.join(f'{row}\t{classes[row % 3]}\n' for row in range(num_images)))
  return folder / 'labels.tsv'


def options(folder, **changes) -> dict:
  return dict(data=folder / 'elsewhere', name='other', split='testall') | changes


def test_the_command_evaluates_the_other_data_and_leaves_the_runs_own_results(folder, capsys):
  before = (folder / 'run' / 'results.json').read_bytes()
  labels = write_labels(folder)
  arguments = ['transfer', str(folder / 'run'), '--data', str(folder / 'elsewhere'), '--name', 'other']
  run([*arguments, '--split', 'testall', '--class-labels', str(labels), '--ties', 'pessimistic'])
  assert (folder / 'run' / 'results.json').read_bytes() == before
  results = json.loads((folder / 'run' / 'transfer_other_testall.json').read_text())
  trained, variables, _, mesh = load_best(folder / 'run')
  split = synthetic_split(folder)
  scores = Evaluator(trained, mesh).scores(variables, split)
  expected = protocol_metrics(scores, split.owner, ties='pessimistic')
  expected |= plausible_metrics(scores, split.owner, read_class_labels(labels, split.ids), ties='pessimistic')
  assert results['metrics'] == pytest.approx(expected)
  assert results['chance'].keys() == expected.keys()
  assert results['chance']['t2i/r1'] == pytest.approx(100 / 17)
  assert {key: results[key] for key in ('trained_on', 'data', 'split', 'protocol', 'ties', 'unknown_words')} == {
    'trained_on': 'tiny', 'data': 'other', 'split': 'testall', 'protocol': 'all', 'ties': 'pessimistic',
    'unknown_words': 0.0,
  }  # fmt: skip
  printed = capsys.readouterr().out
  assert 'other, testall, with the checkpoint of step 12' in printed
  assert 'Plausible matches' in printed


def synthetic_split(folder):
  return load_split(folder / 'elsewhere' / 'other_precomp', 'testall')


def test_words_that_are_unknown_are_counted_and_too_many_are_refused(folder, tmp_path):
  data = tmp_path / 'other_precomp'
  synthetic.write_split(data, 'testall', 17, seed=9)
  captions = (data / 'testall_caps.txt').read_text().splitlines()
  captions[0] = 'quagga'  # one of some hundred words
  captions[1] = ' '.join(['dog'] * 11)  # the widest bucket holds 12 with the two special tokens
  (data / 'testall_caps.txt').write_text('\n'.join(captions) + '\n')
  said = []
  transfer(folder / 'run', **options(folder, data=tmp_path), output=tmp_path / 'found.json', say=said.append)
  found = json.loads((tmp_path / 'found.json').read_text())
  num_words = sum(len(caption.split()) for caption in captions)
  assert (found['unknown_words'], found['cut_captions']) == (pytest.approx(1 / num_words), 1)
  assert f'{1 / num_words:.1%} of the words are unknown, 1 captions were cut' in said[0]
  (data / 'testall_caps.txt').write_text('ein Hund und eine Katze\n' * len(captions))
  with pytest.raises(UserError, match='run: its vocabulary does not know 100% of the words of split testall'):
    transfer(folder / 'run', **options(folder, data=tmp_path))


def test_features_of_another_size_or_encoder_are_refused(folder, tmp_path):
  data = tmp_path / 'other_precomp'
  synthetic.write_split(data, 'testall', 17, seed=9)
  (data / 'provenance.json').write_text('{"encoder": "theirs"}')
  (folder / 'run' / 'provenance.json').write_text('{"encoder": "ours"}')
  try:
    with pytest.raises(
      UserError, match='provenance.json: other features than .*run was trained on.*"theirs", was "ours"'
    ):
      transfer(folder / 'run', **options(folder, data=tmp_path))
  finally:
    (folder / 'run' / 'provenance.json').unlink()
  np.save(data / 'testall_ims.npy', np.load(data / 'testall_ims.npy')[..., :-2])
  with pytest.raises(UserError, match=r'testall_ims.npy: features of size 11, .*run was trained on 13'):
    transfer(folder / 'run', **options(folder, data=tmp_path))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'protocol': 'flickr'}, "config.evaluation.protocol is 'flickr', expected 'all', 'coco' or 'eccv'"),
    ({'protocol': 'coco'}, 'defined on the COCO test set of 5000 images with 5 captions each, found 17 images'),
    (
      {'protocol': 'eccv'},
      'other_precomp/testall_caption_ids.txt: no such file; protocol eccv needs the COCO annotation',
    ),
    ({'protocol': 'eccv', 'caption_ids': 'none.txt'}, 'none.txt: no such file; protocol eccv'),
    ({'class_labels': 'none.tsv'}, 'none.tsv: cannot be read as class labels'),
  ],
)
def test_what_is_missing_is_said_before_anything_is_encoded(folder, monkeypatch, settings, message):
  monkeypatch.setattr(Evaluator, 'embed', lambda *_: pytest.fail('encoded'))
  with pytest.raises(UserError, match=message):
    transfer(folder / 'run', **options(folder), settings=settings)


def test_the_runs_own_evaluation_has_plausible_matches_too(folder, capsys):
  config = synthetic.tiny_config(folder / 'data')
  config.evaluation.class_labels = str(write_labels(folder))
  metrics = evaluate_best(folder / 'run', config)[1]
  results = json.loads((folder / 'run' / 'results.json').read_text())
  assert results['metrics'] == metrics
  assert 0 < metrics['pm/i2t/r_precision'] < 100
  assert 'Plausible matches' in capsys.readouterr().out
  evaluate_best(folder / 'run')  # puts results.json back


@pytest.fixture(scope='module')
def coco():
  """COCO's test set without features: random embeddings and a split around them, in Karpathy's order."""
  rng, owner = np.random.default_rng(0), np.arange(25000) // 5
  images = rng.normal(size=(5000, 7)).astype(np.float32)
  texts = (images[owner] + rng.normal(size=(25000, 7))).astype(np.float32)
  ids = list(map(str, coco_image_ids().tolist()))
  return images, texts, Split('testall', images, [''] * 25000, owner, ids)


def coco_config(directory, **settings):
  config = synthetic.tiny_config(directory)
  config.data.name = 'coco'
  config.evaluation.update(protocol='eccv', **settings)
  return config


@needs_package
def test_ids_from_the_file_beside_the_captions_a_named_one_or_karpathys_order(coco, tmp_path):
  images, texts, split = coco
  (tmp_path / 'coco_precomp').mkdir()
  path = tmp_path / 'coco_precomp' / 'testall_caption_ids.txt'
  path.write_text('\n'.join(map(str, coco_caption_ids().tolist())) + '\n')
  beside = evaluate_split(DotScores(images, texts), split, coco_config(tmp_path))
  assert beside.keys() > {'coco_5k/rsum', 'coco_1k/fold_4/rsum', 'cxc/rsum', 'eccv/i2t/map_at_r', 'eccv/t2i/r1'}
  path.rename(tmp_path / 'ids.txt')
  for given in (str(tmp_path / 'ids.txt'), 'karpathy'):
    check_split(split, coco_config(tmp_path, caption_ids=given))
  with pytest.raises(UserError, match='testall_caption_ids.txt: no such file'):
    check_split(split, coco_config(tmp_path))
  (tmp_path / 'ids.txt').write_text('\n'.join(map(str, coco_caption_ids()[::-1].tolist())) + '\n')
  with pytest.raises(UserError, match='ids.txt: caption 770337 belongs to COCO image 391895, in the data set to '):
    check_split(split, coco_config(tmp_path, caption_ids=str(tmp_path / 'ids.txt')))
  tables = format_table(beside, beside, beside), results_table(beside, beside, beside)
  for title, columns in (JUDGED['cxc/'], JUDGED['eccv/']):
    assert all(title in table and name in table for table in tables for _, name in columns)
  for key in ('cxc/t2i/r5', 'eccv/i2t/map_at_r'):
    assert all(table.count(f'{beside[key]:.1f}') >= 3 for table in tables)  # its own, zero-shot, by chance
  assert not any('Plausible' in table for table in tables)


@needs_package
def test_chance_of_eccv_caption(coco, tmp_path):
  """Every order of the candidates is as good as any other: R of so many, on average."""
  found = chance_on_split(coco[2], coco_config(tmp_path, caption_ids='karpathy', ties='optimistic'))
  assert found['coco_5k/i2t/r1'] == pytest.approx(100 * 5 / 25000)
  counts = np.array([len(images) for images in judgements('eccv', 't2i').values()])
  for key in ('r1', 'r_precision'):
    assert found[f'eccv/t2i/{key}'] == pytest.approx(100 * np.mean(counts) / 5000)
  assert 0 < found['eccv/t2i/map_at_r'] < found['eccv/t2i/r_precision']
