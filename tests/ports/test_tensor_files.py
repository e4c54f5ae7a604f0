"""Tensors of a folder, single or sharded: what is damaged is named."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from hrem_jax.errors import UserError
from hrem_jax.ports.tensor_files import read_tensors

ARRAYS = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.arange(5, dtype=np.float16)}
INDEX = 'model.safetensors.index.json'


@pytest.fixture
def shards(tmp_path):
  """A folder with `a` and `b` in a file each."""
  for number, name in enumerate(ARRAYS, start=1):
    safetensors.numpy.save_file({name: ARRAYS[name]}, tmp_path / f'model-{number}.safetensors')
  write_index(tmp_path, {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'})
  return tmp_path


def write_index(folder, place):
  (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': place}))


def test_shards_and_one_file_are_the_same(shards, tmp_path_factory):
  single = tmp_path_factory.mktemp('single')
  safetensors.numpy.save_file(ARRAYS, single / 'model.safetensors')
  for folder in (shards, single):
    tensors = read_tensors(folder)
    assert sorted(tensors) == ['a', 'b']
    assert len(tensors) == 2
    assert 'c' not in tensors
    for name, array in ARRAYS.items():
      assert tensors[name].dtype == np.float32
      np.testing.assert_array_equal(tensors[name], array)
    content = b''.join(path.read_bytes() for path in sorted(folder.glob('*.safetensors')))
    assert tensors.sha256() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
  ('place', 'message'),
  [
    (
      {'a': 'model-1.safetensors', 'b': 'model-3.safetensors'},
      r"names the file 'model-3.safetensors', which is not",
    ),
    ({'a': '../model-1.safetensors'}, r"names the file '../model-1.safetensors', which is not in"),
    ({'a': 'model-2.safetensors'}, r"'a' is not in model-2.safetensors \(1 tensors are missing\)"),
    ({'a': 3}, 'no weight_map, expected an object from tensors to files'),
    ({}, 'no weight_map'),
    ([], 'no weight_map'),
  ],
)
def test_an_index_that_is_wrong_is_named(shards, place, message):
  write_index(shards, place)
  with pytest.raises(UserError, match=f'{INDEX}: {message}'):
    read_tensors(shards)


def test_a_damaged_shard_is_named(shards):
  path = shards / 'model-2.safetensors'
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(UserError, match=r'model-2.safetensors: not a whole safetensors file'):
    read_tensors(shards)


@pytest.mark.parametrize(
  ('kind', 'num_bytes'), [('F8_E4M3', 1), ('F8_E5M2', 1), ('I64', 8), ('BOOL', 1), ('F4', 1), ('C64', 8)]
)
def test_tensors_of_another_type_are_named_where_one_is_wanted(tmp_path, kind, num_bytes):
  """A file may hold such (positions, say), as long as no table asks for them."""
  count = 2 if kind == 'F4' else 1
  header = {
    'odd': {'dtype': kind, 'shape': [count], 'data_offsets': [0, num_bytes]},
    'good': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [num_bytes, num_bytes + 2]},
  }
  text = json.dumps(header).encode()
  content = len(text).to_bytes(8, 'little') + text + bytes(num_bytes) + b'\x80\x3f'
  (tmp_path / 'model.safetensors').write_bytes(content)
  tensors = read_tensors(tmp_path)
  assert tensors['good'].tolist() == [1.0]
  with pytest.raises(UserError, match=f"model.safetensors: 'odd' is of type '{kind}', expected one of F64, F32, F16, "):
    tensors['odd']
  assert tensors.renamed(str.upper)['GOOD'].tolist() == [1.0]
