"""Checkpoints of the public programs beside HREM's: their embeddings and scores, their recipes, whose they are."""

import argparse
import json

import golden_model
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from numpy.testing import assert_allclose

from hrem_jax import cli
from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import METHODS
from hrem_jax.ports.convert import PROGRAMS, read_release_model
from hrem_jax.retrieval.convert import convert
from hrem_jax.retrieval.run import load_best, open_run

SCAN = golden_model.load('scan_small')
SCAN_OPTIONS = json.loads(str(SCAN['setting_json']))['variants']


def state_dicts(name: str) -> list[dict]:
  prefixes = ('weight/img_enc.', 'weight/txt_enc.') if name == 'scan_small' else ('weights/image.', 'weights/text.')
  return [golden_model.part(golden_model.load(name), prefix, np.float32) for prefix in prefixes]


def checkpoint(path, name: str, changes: tuple[dict, dict] = ({}, {}), options: dict | None = None, **others):
  image, text = (state | change for state, change in zip(state_dicts(name), changes, strict=True))
  opt = argparse.Namespace(no_imgnorm=False, no_txtnorm=False, **(options or {}))
  return torch_files.save_checkpoint(path, image, text, opt=opt, **others)


def vocabulary(folder, name: str):
  """As many made-up words as the word embeddings have rows; GPO's program adds `<mask>` itself."""
  if name == 'gpo_bert':
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *(f'word{number}' for number in range(32))]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    return folder / 'vocab.txt'
  words = ['<pad>', '<start>', '<end>', '<unk>', *(f'word{n}' for n in range(36 if name == 'scan_small' else 32))]
  content = {
    'word2idx': {word: number for number, word in enumerate(words)},
    'idx2word': {str(number): word for number, word in enumerate(words)},
    'idx': len(words),
  }
  (folder / 'words.json').write_text(json.dumps(content))
  return folder / 'words.json'


def converted(tmp_path, name: str, **settings):
  """The run and its variables, by way of a file."""
  path = checkpoint(tmp_path / f'{name}.pth', name, **settings)
  heads = ['--bert-heads=2'] if name == 'gpo_bert' else []
  options = ['--output', str(tmp_path / 'run'), '--vocabulary', str(vocabulary(tmp_path, name)), *heads]
  cli.run(['convert', str(path), *options])
  return load_best(tmp_path / 'run')[:2]


def mask(lengths: np.ndarray, most: int):
  return jnp.asarray(np.arange(most) < lengths[:, None])


def close(found, expected, mask=...):
  assert found.shape == expected.shape
  assert_allclose(np.asarray(found)[mask], expected[mask], rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('name', ['gpo_bert', 'gpo_bigru'])
def test_gpo_gives_the_programs_embeddings_and_similarity(tmp_path, name):
  run, variables = converted(tmp_path, name, Eiters=70, best_rsum=500.5)
  assert run.config.method == 'gpo'
  expected = golden_model.load(name)
  regions, tokens = jnp.asarray(expected['regions']), jnp.asarray(expected['tokens'], jnp.int32)
  images = ImageInputs(regions, mask(expected['region_lengths'], regions.shape[1]))
  texts = TextInputs(tokens, mask(expected['word_lengths'], tokens.shape[1]))
  images = run.method.apply(variables, images, method='encode_images')
  texts = run.method.apply(variables, texts, method='encode_texts')
  for found, prefix in ((images, 'image'), (texts, 'text')):
    close(found.fragments, expected[f'eval/{prefix}_fragments'], np.asarray(found.mask))
    close(found.embedding, expected[f'eval/{prefix}s'])
  scores = run.method.apply(variables, images, texts, method='score')
  close(scores[0], expected['eval/similarity'])


@pytest.mark.parametrize('variant', ['t2i_lse', 'i2t_lse_coco', 't2i_max_softmax', 'i2t_sum_no_norm'])
def test_scan_gives_the_programs_scores(tmp_path, variant):
  run, variables = converted(tmp_path, 'scan_small', options=SCAN_OPTIONS[variant])
  assert run.config.method == 'scan'
  tokens = jnp.asarray(SCAN['eval/tokens'], jnp.int32)
  regions = jnp.asarray(SCAN['eval/images'])
  images = ImageInputs(regions, jnp.ones(regions.shape[:2], bool))
  images = run.method.apply(variables, images, method='encode_images')
  texts = TextInputs(tokens, mask(SCAN['eval/lengths'], tokens.shape[1]))
  texts = run.method.apply(variables, texts, method='encode_texts')
  close(images.fragments, SCAN['eval/regions'])
  close(texts.fragments, SCAN['eval/words'])
  close(run.method.apply(variables, images, texts, method='score')[0], SCAN[f'eval/score/{variant}'])


GPO_OPTIONS = dict(
  data_name='coco_precomp',
  margin=0.3,
  max_violation=True,
  num_epochs=20,
  batch_size=64,
  grad_clip=1.5,
  learning_rate=1e-4,
  lr_update=7,
  vse_mean_warmup_epochs=2,
)
SHARED = {
  'data.name': 'coco',
  'loss.margin': 0.3,
  'loss.base': 'hinge',
  'loss.hardest_negative': True,
  'training.num_epochs': 20,
  'training.batch_size': 64,
  'optimizer.clip_norm': 1.5,
  'optimizer.learning_rate': 1e-4,
  'evaluation.select_on': 'dev',
  'model.embedding_size': 24,
  'model.region_size': 20,
}
GPO = SHARED | {
  'gpo.hidden_size': 32,
  'gpo.position_size': 32,
  'loss.hardest_from': (2, 'epochs'),
  'optimizer.decay_epochs': (7,),
}
BIGRU = {'optimizer.weight_decay': 0.01, 'optimizer.language_model_lr_factor': 1.0, 'data.min_word_count': 4}
OWN = dict(cross_attn='i2t', agg_func='Mean', lambda_softmax=4.0, lambda_lse=5, raw_feature_norm='l2norm')
RECIPES = {
  'gpo_bert': (
    GPO_OPTIONS,
    GPO | {'model.text': 'bert', 'optimizer.weight_decay': 1e-4, 'optimizer.language_model_lr_factor': 0.1},
  ),
  'gpo_bigru': (GPO_OPTIONS, GPO | {'model.text': 'bigru', 'model.bigru.word_size': 10} | BIGRU),
  'scan_small': (
    {**GPO_OPTIONS, **OWN},
    SHARED
    | {
      'model.embedding_size': 32,
      'scan.asks': 'regions',
      'scan.aggregation': 'mean',
      'scan.inverse_temperature': 4.0,
      'scan.lse_factor': 5.0,
      'scan.normalisation': 'l2norm',
      'model.region_size': 24,
      'model.text': 'bigru',
      'optimizer.name': 'adam',
      'optimizer.decay_epochs': (7, 14),
      'optimizer.weight_decay': 0.0,
    },
  ),
}


@pytest.mark.parametrize('name', RECIPES)
def test_the_configuration_says_what_the_options_say(tmp_path, name):
  options, expected = RECIPES[name]
  path = checkpoint(tmp_path / 'a.pth', name, options=options, Eiters=70, best_rsum=500.5)
  lines = []
  convert(path, tmp_path / 'run', vocabulary=vocabulary(tmp_path, name), bert_heads=2, say=lines.append)
  config = open_run(tmp_path / 'run').config
  flat = {key: value for key, value in config.to_dict().items() if not isinstance(value, dict)}
  assert flat == {'method': name.split('_')[0]}
  assert {key: config[key.split('.')[0]][key.split('.')[1]] for key in expected if key.count('.') == 1} == {
    key: value for key, value in expected.items() if key.count('.') == 1
  }
  assert not any('left out' in line for line in lines)  # also of what GPO's program has and never uses
  assert lines[-1].endswith('step 70')


def test_every_method_with_a_table_of_names_can_be_converted():
  assert PROGRAMS.keys() <= METHODS.keys()
  for name in ('gpo_bert', 'gpo_bigru', 'scan_small'):
    assert name.split('_')[0] in PROGRAMS


HREM = {'fc.fc.weight': np.ones((24, 20)), 'fc.weight': np.ones(2)}


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('gpo_bert', ({'backbone.conv1.weight': np.ones(2)}, {}), 'hrem_jax does not have, .*: backbone.conv1.weight'),
    ('gpo_bigru', ({}, {'gpool.gru.weight_ih_l1': np.ones(2)}), 'hrem_jax does not have, .*: gpool.gru.weight_ih_l1'),
    ('gpo_bigru', ({}, {'rnn.bias_hh_l1': np.ones(2)}), 'hrem_jax does not have, .*: rnn.bias_hh_l1'),
    ('gpo_bigru', ({'gpool.gru.weight_ih_l0': np.ones(2)}, {}), 'no tensor gpool.gru.weight_ih_l0 with 2 dimensions'),
    ('gpo_bigru', ({'gpool.linear.weight': np.ones((1, 7))}, {}), r'score/kernel has shape .7, 1., the model expects'),
    ('scan_small', ({'fc.bias': np.ones(3)}, {}), r'linear/bias has shape .3,., the model expects .32,.'),
    ('scan_small', ({'fc.weight': np.ones(3)}, {}), 'no tensor fc.weight with 2 dimensions'),
    (
      'scan_small',
      ({}, {'attention.weight': np.ones(3)}),
      r'its tensors \(attention.weight, .* are of no program that is known \(hrem: .*; gpo: fc, mlp and gpool; scan: .*'
      '; --method says',
    ),
    ('gpo_bert', (HREM, {}), r'could be of hrem or gpo; --method says whose checkpoint it is'),
  ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, changes, message):
  refused(tmp_path, checkpoint(tmp_path / 'a.pth', name, changes), vocabulary(tmp_path, name), message)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('scan_small', {'cross_attn': 'both'}, "the option cross_attn is 'both', expected one of t2i, i2t"),
    ('scan_small', {'agg_func': ['Mean']}, r"the option agg_func is \['Mean'\], expected one of LogSumExp, Mean, Max"),
    ('scan_small', {'raw_feature_norm': 'l1norm'}, "raw_feature_norm is 'l1norm', expected one of clipped_l2norm"),
    ('scan_small', {'raw_feature_norm': 'x' * 10**6}, "raw_feature_norm is 'xxx.*, expected one of clipped_l2norm"),
    ('scan_small', {'lambda_lse': 0.0}, 'config.scan.lse_factor is 0.0, expected positive'),
    ('scan_small', {'lambda_softmax': 'hot'}, 'type str for config.scan.inverse_temperature, expected float'),
    ('scan_small', {'lr_update': 0}, 'lr_update is 0 and num_epochs 30, expected whole numbers from 1, num_epochs up'),
    ('scan_small', {'lr_update': 1, 'num_epochs': 10**12}, 'num_epochs 1000000000000, expected whole .* up to 10,000'),
    ('scan_small', {'lr_update': 15.0}, 'lr_update is 15.0 and num_epochs 30, expected whole numbers'),
    ('scan_small', {'data_name': ['f30k']}, r"the option data_name is \['f30k'\], expected a text"),
    ('gpo_bigru', {'lr_update': 'late'}, 'type tuple for config.optimizer.decay_epochs, expected tuple, found .*late'),
    ('gpo_bigru', {'lr_update': 0}, r'config.optimizer.decay_epochs is \(0,\), expected positive epochs'),
    ('gpo_bigru', {'vse_mean_warmup_epochs': -1}, r"hardest_from is \(-1, 'epochs'\), expected"),
    ('gpo_bigru', {'vse_mean_warmup_epochs': 2**63}, r"found \(9223372036854775808, 'epochs'\)"),
    ('gpo_bigru', {'vse_mean_warmup_epochs': [1]}, r"found \(\[1\], 'epochs'\)"),
  ],
)
def test_options_that_do_not_fit_are_named(tmp_path, name, options, message):
  refused(tmp_path, checkpoint(tmp_path / 'a.pth', name, options=options), vocabulary(tmp_path, name), message)


def refused(tmp_path, path, words, message: str, **arguments) -> None:
  with pytest.raises(UserError, match=message) as raised:
    convert(path, tmp_path / 'run', vocabulary=words, say=lambda line: None, **arguments)
  assert len(str(raised.value)) < 701
  assert '\n' not in str(raised.value)
  assert not (tmp_path / 'run').exists()
  assert not any(path.name.startswith('.') for path in tmp_path.iterdir())


def test_whose_checkpoint_it_is_may_be_said(tmp_path):
  both = checkpoint(tmp_path / 'both.pth', 'gpo_bigru', ({'fc.fc.weight': np.ones((24, 20))}, {}))
  found = read_release_model(both, 'gpo')
  assert (found.method, found.left_out) == ('gpo', ['fc.fc.weight'])
  words = vocabulary(tmp_path, 'gpo_bigru')
  refused(tmp_path, both, words, "--method is 'clip', expected one of hrem, gpo, scan", method='clip')
  refused(tmp_path, both, words, "no tensor 'fc.fc.bias'|gpool", method='hrem')
  bert = checkpoint(tmp_path / 'bert.pth', 'gpo_bert')
  refused(tmp_path, bert, words, 'its text encoder is a BERT, SCAN has a BiGRU', method='scan')
