"""BERT folders: sizes, weights by name, and one message for each thing that can be wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_allclose

from hrem_jax.errors import UserError
from hrem_jax.models.bert import Bert
from hrem_jax.ports import huggingface

CONFIG = dict(
  model_type='bert',
  vocab_size=23,
  hidden_size=12,
  num_hidden_layers=3,
  num_attention_heads=3,
  intermediate_size=17,
  max_position_embeddings=19,
  hidden_dropout_prob=0.2,
  layer_norm_eps=1e-12,
)


def their_tensors(rng: np.random.Generator, prefix: str = '') -> dict[str, np.ndarray]:
  """Random weights under Hugging Face's names, the pooler included."""
  shapes = {
    'embeddings.word_embeddings.weight': (23, 12),
    'embeddings.position_embeddings.weight': (19, 12),
    'embeddings.token_type_embeddings.weight': (2, 12),
    'embeddings.LayerNorm.weight': (12,),
    'embeddings.LayerNorm.bias': (12,),
    'pooler.dense.weight': (12, 12),
    'pooler.dense.bias': (12,),
  }
  for layer in range(3):
    for name, shape in {
      **{f'attention.self.{part}': (12, 12) for part in ('query', 'key', 'value')},
      'attention.output.dense': (12, 12),
      'attention.output.LayerNorm': (12,),
      'intermediate.dense': (17, 12),
      'output.dense': (12, 17),
      'output.LayerNorm': (12,),
    }.items():
      shapes[f'encoder.layer.{layer}.{name}.weight'] = shape
      shapes[f'encoder.layer.{layer}.{name}.bias'] = shape[:1]
  return {prefix + name: rng.normal(size=shape).astype(np.float32) / 3 for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
  safetensors.numpy.save_file(their_tensors(np.random.default_rng(0)), tmp_path / 'model.safetensors')
  return tmp_path


def bert_by_hand(tensors: dict, tokens: np.ndarray) -> np.ndarray:
  """One sentence without padding through BERT's equations, in NumPy float64."""
  from scipy.special import erf

  weights = {name: array.astype(np.float64) for name, array in tensors.items()}

  def linear(x, name):
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

  def norm(x, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * weights[f'{name}.weight'] + weights[f'{name}.bias']

  x = weights['embeddings.word_embeddings.weight'][tokens]
  x = x + weights['embeddings.position_embeddings.weight'][: len(tokens)]
  x = norm(x + weights['embeddings.token_type_embeddings.weight'][0], 'embeddings.LayerNorm')
  for layer in range(3):
    name = f'encoder.layer.{layer}'
    mixed = []
    for head in range(3):
      where = slice(4 * head, 4 * head + 4)
      query, key, value = (linear(x, f'{name}.attention.self.{p}')[:, where] for p in ('query', 'key', 'value'))
      attention = np.exp(query @ key.T / 2)
      mixed.append(attention / attention.sum(1, keepdims=True) @ value)
    x = norm(
      x + linear(np.concatenate(mixed, 1), f'{name}.attention.output.dense'), f'{name}.attention.output.LayerNorm'
    )
    hidden = linear(x, f'{name}.intermediate.dense')
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    x = norm(x + linear(hidden, f'{name}.output.dense'), f'{name}.output.LayerNorm')
  return x


@pytest.mark.parametrize('prefix', ['', 'bert.'])
def test_weights_go_where_they_belong(folder, prefix):
  tensors = their_tensors(np.random.default_rng(0))
  safetensors.numpy.save_file({prefix + name: x for name, x in tensors.items()}, folder / 'model.safetensors')
  sizes = huggingface.bert_sizes(folder)
  assert sizes == dict(
    vocab_size=23,
    hidden_size=12,
    num_layers=3,
    num_heads=3,
    intermediate_size=17,
    max_positions=19,
    dropout=0.2,
    norm_epsilon=1e-12,
  )
  params = huggingface.read_bert(folder, num_layers=3)
  model = Bert(**sizes)
  tokens, mask = jnp.array([[3, 1, 4, 1, 5, 9, 2]]), jnp.ones((1, 7), bool)
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, mask)['params']
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, params)
  states = model.apply({'params': params}, tokens, mask)[0]
  assert_allclose(states, bert_by_hand(tensors, np.asarray(tokens[0])), atol=2e-5)


def test_shards_are_read_as_one_file(folder):
  whole = huggingface.read_bert(folder, num_layers=3)
  (folder / 'model.safetensors').unlink()
  tensors, place = their_tensors(np.random.default_rng(0)), {}
  for number in range(2):
    names = sorted(tensors)[number::2]
    place |= dict.fromkeys(names, f'model-{number}.safetensors')
    safetensors.numpy.save_file({name: tensors[name] for name in names}, folder / f'model-{number}.safetensors')
  (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': place}))
  jax.tree.map(np.testing.assert_array_equal, huggingface.read_bert(folder, num_layers=3), whole)


def test_names_of_the_first_years_are_understood(folder):
  tensors = their_tensors(np.random.default_rng(0))
  old = {
    name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): array
    for name, array in tensors.items()
  }
  today = huggingface.read_bert(folder, num_layers=3)
  safetensors.numpy.save_file(old, folder / 'model.safetensors')
  jax.tree.map(np.testing.assert_array_equal, huggingface.read_bert(folder, num_layers=3), today)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(model_type='roberta'), r"config.json: model_type is 'roberta', expected 'bert'"),
    (dict(hidden_act='relu'), r"hidden_act is 'relu', expected 'gelu'"),
    (dict(position_embedding_type='relative_key'), 'position_embedding_type'),
  ],
)
def test_other_architectures_are_refused(folder, change, message):
  (folder / 'config.json').write_text(json.dumps(CONFIG | change))
  with pytest.raises(UserError, match=message):
    huggingface.bert_sizes(folder)


def test_missing_and_damaged_files_are_named(folder):
  with pytest.raises(UserError, match=r"no tensor 'encoder.layer.3.attention.self.query.weight'"):
    huggingface.read_bert(folder, num_layers=4)
  whole = (folder / 'model.safetensors').read_bytes()
  (folder / 'model.safetensors').write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError, match='model.safetensors: not a whole safetensors file'):
    huggingface.read_bert(folder, num_layers=3)
  (folder / 'model.safetensors').unlink()
  with pytest.raises(UserError, match='model.safetensors: no such file; weights are read from safetensors only'):
    huggingface.read_bert(folder, num_layers=3)
  (folder / 'config.json').write_text('{')
  with pytest.raises(UserError, match='config.json: not JSON'):
    huggingface.bert_sizes(folder)
  (folder / 'config.json').write_text('{}')
  with pytest.raises(UserError, match="config.json: no key 'vocab_size'"):
    huggingface.bert_sizes(folder)
  (folder / 'config.json').unlink()
  with pytest.raises(UserError, match='config.json: no such file'):
    huggingface.bert_sizes(folder)


def test_shapes_are_checked():
  ours = {'layers': {'kernel': np.zeros((3, 4))}}
  same = huggingface.merge_checked(ours, {'layers': {'kernel': np.ones((3, 4))}}, source='f')
  assert (same['layers']['kernel'] == 1).all()
  with pytest.raises(UserError, match=r'f: layers/kernel has shape \(4, 3\), the model expects \(3, 4\)'):
    huggingface.merge_checked(ours, {'layers': {'kernel': np.ones((4, 3))}}, source='f')


def test_folders_that_are_not_there_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  with pytest.raises(UserError, match=r"config.model.weights='.*bert': no such folder; expected is a folder with"):
    huggingface.find_folder(str(tmp_path / 'bert'))


def test_a_hub_name_without_a_network_says_so(monkeypatch):
  import huggingface_hub

  def offline(*arguments, **options):
    raise OSError('no network')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', offline)
  with pytest.raises(UserError, match=r'the Hugging Face hub did not give it \(OSError\)'):
    huggingface.find_folder('nobody/bert-nothing')
