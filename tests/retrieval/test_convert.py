"""The release's checkpoint becomes a workdir that gives the release's embeddings; export gives it to others."""

import json
import shutil

import golden_model
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from numpy.testing import assert_allclose, assert_array_equal

from hrem_jax import cli
from hrem_jax.data.batch import TextInputs
from hrem_jax.errors import UserError
from hrem_jax.retrieval.convert import convert
from hrem_jax.retrieval.export import export
from hrem_jax.retrieval.run import best_step, load_best, open_run, restore_variables

REGIONS, WORD, SIZE, ROWS = 13, 5, 16, 7


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  """As many made-up words as the golden BERT has rows."""
  path = tmp_path_factory.mktemp('words') / 'vocab.txt'
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *(f'word{number}' for number in range(195))]
  path.write_text('\n'.join(words) + '\n')
  return path


@pytest.fixture(scope='module')
def converted(vocabulary, golden, tmp_path_factory):
  workdir, lines = tmp_path_factory.mktemp('converted') / '[v2] 50% #1', []
  convert(golden / 'model_best.pth', workdir, vocabulary=vocabulary, data_name='f8k', say=lines.append)
  return workdir, lines


@pytest.mark.parametrize('name', ['full', 'ragged'])
def test_a_converted_checkpoint_gives_the_releases_embeddings(converted, name):
  run, variables, step, _ = load_best(converted[0])
  assert step == 7924
  expected = golden_model.load(f'encoder_{name}')
  batch = golden_model.batch(expected, '', np.float32)
  images = run.method.apply(variables, batch.images, method='encode_images').embedding
  texts = run.method.apply(variables, batch.texts, method='encode_texts').embedding
  for found, prefix in ((images, 'img'), (texts, 'cap')):
    assert found.shape == expected[f'{prefix}_emb'].shape
    assert_allclose(found, expected[f'{prefix}_emb'], rtol=0, atol=1e-5 * np.abs(expected[f'{prefix}_emb']).max())


@pytest.mark.parametrize('name', ['checkpoints/7924/metrics/metrics', 'config.json', 'tokenizer.json'])
def test_what_decides_is_refused_once_it_has_changed(converted, tmp_path, name):
  """A converted run has checksums as a trained one has: its files are no less the ones that decide."""
  workdir = tmp_path / 'run'
  shutil.copytree(converted[0], workdir)
  load_best(workdir)
  content = (workdir / name).read_bytes()
  (workdir / name).write_bytes(content.replace(b'1', b'2', 1))
  with pytest.raises(UserError, match=f'{name.removeprefix("checkpoints/7924/")} is not what was written'):
    load_best(workdir)


def test_the_configuration_says_what_the_checkpoint_says(converted):
  workdir, lines = converted
  config = open_run(workdir).config
  assert (config.model.embedding_size, config.model.region_size, config.hrem.num_heads) == (64, 48, 4)
  assert (config.model.bert.vocab_size, config.model.bert.hidden_size, config.model.bert.num_layers) == (200, 32, 2)
  assert (config.hrem.interaction, config.data.name, config.evaluation.select_on) == ('none', 'f8k', 'test')
  assert max(config.data.length_buckets) == config.model.bert.max_positions == 64
  assert (config.loss.hardest_negative, config.training.batch_size) == (False, 12)
  assert 'heads of the BERT: 4 (a guess' in lines[0]
  assert not any('left out' in line for line in lines)


def test_export_is_read_with_nothing_of_ours(converted, tmp_path, capsys):
  cli.run(['export', str(converted[0]), '--output', str(tmp_path / 'out')])
  assert 'step 7924' in capsys.readouterr().out
  assert {path.name for path in tmp_path.joinpath('out').iterdir()} == {
    'model.safetensors',
    'config.json',
    'tokenizer.json',
  }
  tensors = safetensors.numpy.load_file(tmp_path / 'out' / 'model.safetensors')
  variables = restore_variables(converted[0], best_step(converted[0]))
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  assert len(leaves) == len(tensors)
  for path, array in leaves:
    name = '/'.join(key.key for key in path)
    assert tensors[name].dtype == np.float32
    assert_array_equal(tensors[name], array, strict=True)
  assert tensors['params/text_encoder/linear/kernel'].shape == (32, 64)
  weights = golden_model.load('weights')
  assert_array_equal(tensors['params/text_encoder/linear/kernel'], weights['text_encoder.linear.weight'].T)
  assert json.loads((tmp_path / 'out' / 'config.json').read_text())['model']['embedding_size'] == 64
  words = json.loads((tmp_path / 'out' / 'tokenizer.json').read_text())['model']['vocab']
  assert words['word0'] == 5
  with pytest.raises(UserError, match='out: exists already'):
    export(converted[0], tmp_path / 'out')


def save(path, image: dict, text: dict, **others):
  """Writes a checkpoint in the zip format; returns its path."""
  storages = {}

  def tensors(state: dict) -> dict:
    raws = {}
    for name, array in state.items():
      raws[name] = torch_files.tensor(np.asarray(array, np.float32), str(len(storages)))
      storages[str(len(storages))] = np.asarray(array, np.float32).tobytes()
    return raws

  model = [tensors(image), tensors(text)]
  others = {name: tensors(value) if name == 'criterion' else value for name, value in others.items()}
  storages['o'] = np.ones(3).tobytes()  # for others that hold a tensor
  path.write_bytes(torch_files.zip_file(torch_files.program({'model': model, **others}), storages))
  return path


def image_encoder(rng) -> dict:
  shapes = {
    'fc.fc': (SIZE, REGIONS),
    'fc.mlp.layers.0': (SIZE // 2, REGIONS),
    'fc.mlp.layers.1': (SIZE, SIZE // 2),
    'fc.mlp.bns.0': (SIZE // 2,),
  }
  state = {f'{name}.weight': rng.normal(size=shape) for name, shape in shapes.items()}
  state |= {f'{name}.bias': rng.normal(size=shape[0]) for name, shape in shapes.items()}
  return state | {'fc.mlp.bns.0.running_mean': np.zeros(SIZE // 2), 'fc.mlp.bns.0.running_var': np.ones(SIZE // 2)}


def bigru(rng) -> dict:
  state = {'embed.weight': rng.normal(size=(ROWS, WORD))}
  for suffix in ('l0', 'l0_reverse'):
    state[f'rnn.weight_ih_{suffix}'] = rng.normal(size=(3 * SIZE, WORD)) / 2
    state[f'rnn.weight_hh_{suffix}'] = rng.normal(size=(3 * SIZE, SIZE)) / 4
    state[f'rnn.bias_ih_{suffix}'] = rng.normal(size=3 * SIZE)
    state[f'rnn.bias_hh_{suffix}'] = rng.normal(size=3 * SIZE)
  return state


@pytest.fixture
def scan_words(tmp_path):
  words = ['<pad>', '<start>', '<end>', '<unk>', 'a', 'dog', 'runs']
  content = {
    'word2idx': {word: number for number, word in enumerate(words)},
    'idx2word': {str(number): word for number, word in enumerate(words)},
    'idx': len(words),
  }
  (tmp_path / 'words.json').write_text(json.dumps(content))
  return tmp_path / 'words.json'


def torch_gru(text: dict, words: np.ndarray, suffix: str) -> np.ndarray:
  """PyTorch's documented equations, a word and a gate at a time, in float64."""
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
  gates_in = np.split(text[f'rnn.weight_ih_{suffix}'], 3), np.split(text[f'rnn.bias_ih_{suffix}'], 3)
  gates_own = np.split(text[f'rnn.weight_hh_{suffix}'], 3), np.split(text[f'rnn.bias_hh_{suffix}'], 3)
  state, states = np.zeros(SIZE), []
  for word in words:
    (ir, iz, inn), (hr, hz, hn) = (
      [weight @ x + bias for weight, bias in zip(*gates, strict=True)]
      for gates, x in ((gates_in, text['embed.weight'][word]), (gates_own, state))
    )
    r, z = sigmoid(ir + hr), sigmoid(iz + hz)
    state = (1 - z) * np.tanh(inn + r * hn) + z * state
    states.append(state)
  return np.array(states)


@pytest.mark.parametrize('linear', [None, 'fc'])
def test_a_bigru_gives_pytorchs_states(tmp_path, scan_words, linear):
  rng = np.random.default_rng(0)
  text = bigru(rng) | ({'fc.weight': rng.normal(size=(SIZE, SIZE)), 'fc.bias': rng.normal(size=SIZE)} if linear else {})
  parallel = {f'module.{name}': array for name, array in text.items()}
  path = save(tmp_path / 'gru.pth', image_encoder(rng), parallel, Eiters=11)
  convert(path, tmp_path / 'run', vocabulary=scan_words, say=lambda line: None)
  run, variables, step, _ = load_best(tmp_path / 'run')
  assert step == 11
  assert (run.config.hrem.image_graph, run.config.hrem.text_graph) == (False, False)
  assert run.config.model.bigru.vocab_size == ROWS + 1  # <mask>, which SCAN has not
  tokens, lengths = rng.integers(ROWS, size=(3, 5)), [5, 2, 3]
  mask = np.arange(5) < np.array(lengths)[:, None]
  texts = TextInputs(jnp.asarray(tokens), jnp.asarray(mask))
  found = run.method.apply(variables, texts, method='encode_texts').fragments
  assert found.shape == (3, 5, SIZE)
  for row, length in enumerate(lengths):
    words = tokens[row, :length]
    states = (torch_gru(text, words, 'l0') + torch_gru(text, words[::-1], 'l0_reverse')[::-1]) / 2
    expected = states @ text['fc.weight'].T + text['fc.bias'] if linear else states
    assert_allclose(found[row, :length], expected, atol=2e-5)


def test_the_criterions_state_keeps_the_graph(tmp_path, golden, vocabulary):
  weights = golden_model.load('weights')
  image, text, criterion = (
    golden_model.part(weights, prefix, np.float32) for prefix in ('image_encoder.', 'text_encoder.', 'criterion.')
  )
  lines = []
  path = save(tmp_path / 'whole.pth', image | {'strange.weight': np.ones(3)}, text, criterion=criterion)
  convert(path, tmp_path / 'run', vocabulary=vocabulary, bert_heads=4, say=lines.append)
  run, variables, step, _ = load_best(tmp_path / 'run')
  assert step == 0
  assert run.config.hrem.interaction == 'fusion'
  expected = golden_model.variables(np.float32)
  jax.tree.map(lambda found, wanted: assert_array_equal(found, wanted, strict=True), variables, expected)
  assert 'left out, 1 tensors that hrem_jax does not know: strange.weight' in lines


def nothing_written(tmp_path) -> bool:
  return not (tmp_path / 'run').exists() and not any(path.name.startswith('.') for path in tmp_path.iterdir())


@pytest.mark.parametrize(
  ('image', 'text', 'others', 'message'),
  [
    ({'gpool.linear.weight': np.ones((2, 2))}, {}, {}, r'layers that hrem_jax does not have, .*: gpool.linear.weight'),
    ({'module.aggr.layers.1.norm1.bias': np.ones(2)}, {}, {}, 'does not have.*aggr.layers.1.norm1.bias'),
    ({}, {'rnn.weight_ih_l1': np.ones(2)}, {}, 'does not have.*rnn.weight_ih_l1'),
    ({'module.fc.fc.weight': np.ones(2)}, {}, {}, "'fc.fc.weight' occurs twice"),
    ({'fc.fc.weight': np.ones(2)}, {}, {}, 'no tensor fc.fc.weight with 2 dimensions'),
    ({'fc.fc.bias': np.ones(SIZE + 1)}, {}, {}, 'linear/bias has shape .17,., the model expects .16,.'),
    ({'fc.fc.bias': np.full(SIZE, np.nan)}, {}, {}, 'linear/bias has numbers that are not finite'),
    ({'aggr.layers.0.self_attn.in_proj_weight': np.ones((2, 2))}, {}, {}, 'has a shape that does not fit'),
    ({}, {'embed.weight': np.ones((ROWS + 2, WORD))}, {}, 'words.json: 8 tokens, but .* have 9 rows'),
    ({}, {}, {'opt': {'margin': 'wide'}}, r'type str for config.loss.margin, expected float'),
    ({}, {}, {'opt': {'margin': [1]}}, r'type list for config.loss.margin'),
    ({}, {}, {'opt': {'lr_schedules': 3}}, r'config.optimizer.decay_epochs, expected tuple'),
    ({}, {}, {'opt': {'nhead': 3}}, r'embedding_size \(16\) is not divisible'),
    ({}, {}, {'opt': {'no_imgnorm': True}}, 'no_imgnorm'),
    ({}, {}, {'opt': 5}, "'opt' is a int"),
    (
      {},
      {},
      {'opt': {'no_imgnorm': torch_files.tensor(np.ones(3), 'o')}},
      r'the option no_imgnorm is array.*, expected True or False',
    ),
    (
      {},
      {},
      {'opt': {'margin': torch_files.tensor(np.ones(3), 'o')}},
      r'type ndarray for config.loss.margin, expected float',
    ),
    ({}, {}, {'opt': {'batch_size': 2**63}}, r'type int for config.training.batch_size, expected int, found 92233720'),
    ({}, {}, {'opt': {'margin': 10**400}}, r'type int for config.loss.margin, expected float'),
    ({}, {}, {'opt': {'lr_schedules': [-1] * 100_000}}, r'config.optimizer.decay_epochs is .*, expected positive'),
    ({}, {}, {'opt': {'lr_schedules': [*range(1, 100_001), 2**70]}}, 'of type list for config.optimizer.decay'),
    (
      {},
      {},
      {'opt': {'dataset': 'x' * 100_000, 'margin': 'x' * 100_000}},
      r"type str for config.loss.margin, expected float, found 'xxx",
    ),
    ({}, {}, {'Eiters': 2**63}, r'Eiters is 9223372036854775808, expected a number from 0 to 2,147,483,647'),
    ({}, {}, {'Eiters': 10**5000}, r'Eiters is .*, expected a number from 0'),
    ({}, {}, {'Eiters': torch_files.tensor(np.ones(3), 'o')}, r'Eiters is array.*, expected a number from 0'),
    ({}, {}, {'best_rsum': 10**400}, r'best_rsum is 1000.*, expected a number from 0'),
    ({}, {}, {'best_rsum': float('nan')}, r'best_rsum is nan, expected a number from 0'),
    ({}, {}, {'best_rsum': [1] * 10**5}, r'best_rsum is \[1, 1, .*, expected a number from 0'),
  ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, scan_words, image, text, others, message):
  rng = np.random.default_rng(0)
  path = save(tmp_path / 'odd.pth', image_encoder(rng) | image, bigru(rng) | text, **others)
  with pytest.raises(UserError, match=message) as raised:
    convert(path, tmp_path / 'run', vocabulary=scan_words, say=lambda line: None)
  assert len(str(raised.value)) < 500
  assert nothing_written(tmp_path)


def test_a_checkpoint_of_something_else_is_named(tmp_path, scan_words):
  path = tmp_path / 'other.pth'
  path.write_bytes(torch_files.zip_file(torch_files.program({'state_dict': {}}), {}))
  with pytest.raises(UserError, match=r"other.pth: .*expected is 'model' = \[image, text\]"):
    convert(path, tmp_path / 'run', vocabulary=scan_words)


def test_mistakes_with_the_vocabulary_and_the_output_are_named(tmp_path, golden, vocabulary):
  checkpoint = golden / 'model_best.pth'
  short = tmp_path / 'short.txt'
  short.write_text('\n'.join(vocabulary.read_text().split('\n')[:150]))
  for chosen, message in (
    (None, '--vocabulary is missing.*bert-base-uncased'),
    (short, 'short.txt: 150 tokens, but the word embeddings of the checkpoint have 200 rows'),
    (tmp_path / 'nothing.txt', 'nothing.txt: cannot be read'),
  ):
    with pytest.raises(UserError, match=message):
      convert(checkpoint, tmp_path / 'run', vocabulary=chosen, say=lambda line: None)
  with pytest.raises(UserError, match='a BERT of hidden size 32 cannot have 5 heads'):
    convert(checkpoint, tmp_path / 'run', vocabulary=vocabulary, bert_heads=5)
  assert nothing_written(tmp_path)
  with pytest.raises(UserError, match='exists already'):
    convert(checkpoint, tmp_path, vocabulary=vocabulary)
  with pytest.raises(UserError, match='cannot be written'):
    convert(checkpoint, short / 'run', vocabulary=vocabulary, say=lambda line: None)


def test_a_failing_write_leaves_nothing(tmp_path, golden, vocabulary, monkeypatch):
  def full(*arguments):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('hrem_jax.retrieval.run.write_text', full)
  with pytest.raises(UserError, match='run: cannot be written: No space left on device'):
    convert(golden / 'model_best.pth', tmp_path / 'run', vocabulary=vocabulary, say=lambda line: None)
  assert nothing_written(tmp_path)


def test_a_hugging_face_folder_says_the_heads(tmp_path, golden, vocabulary):
  (tmp_path / 'bert').mkdir()
  (tmp_path / 'bert' / 'vocab.txt').write_text(vocabulary.read_text())
  sizes = dict(vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=8, intermediate_size=64)
  config = tmp_path / 'bert' / 'config.json'
  config.write_text(json.dumps(sizes | {'max_position_embeddings': 64}))
  lines = []
  convert(golden / 'model_best.pth', tmp_path / 'run', vocabulary=tmp_path / 'bert', say=lines.append)
  assert open_run(tmp_path / 'run').config.model.bert.num_heads == 8
  assert 'heads of the BERT: 8' in lines[0]
  config.write_text(json.dumps(sizes | {'max_position_embeddings': 63}))
  with pytest.raises(UserError, match='config.json: max_positions is 63, the checkpoint has 64'):
    convert(golden / 'model_best.pth', tmp_path / 'other', vocabulary=tmp_path / 'bert')


def test_where_the_data_is_holds_from_any_folder(tmp_path, golden, vocabulary, monkeypatch):
  monkeypatch.chdir(tmp_path)
  options = [f'--vocabulary={vocabulary}', '--output=run', '--data=features', '--data-name=f8k']
  cli.run(['convert', str(golden / 'model_best.pth'), *options])
  config = open_run(tmp_path / 'run').config.data
  assert (config.directory, config.name) == (str(tmp_path / 'features'), 'f8k')


def test_the_command_line_ends_in_one_line(tmp_path, golden, capsys):
  with pytest.raises(SystemExit, match='2'):
    cli.run(['convert', str(golden / 'model_best.pth'), '--output', str(tmp_path / 'run')])
  assert capsys.readouterr().err.count('\n') <= 1
