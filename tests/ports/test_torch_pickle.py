"""PyTorch checkpoints are read without PyTorch, and nothing in them is run."""

import argparse
import codecs
import collections
import pickle
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch_files import Named, Raw

from hrem_jax.errors import UserError
from hrem_jax.ports.torch_names import Namespace
from hrem_jax.ports.torch_pickle import read_checkpoint

NUMBERS = np.arange(35, dtype=np.float32)
FLAGS = np.array([True, False, True])


def content() -> dict:
  state = collections.OrderedDict(weight=torch_files.tensor(NUMBERS.reshape(5, 7), '0'))
  state['window'] = Raw(NUMBERS, 3, (2, 3), (1, 7), key='0')  # shares the storage, transposed
  state['flags'] = torch_files.tensor(FLAGS, '1')
  state['scalar'] = Raw(np.array([11], np.int64), 0, (), (), key='2')
  return {'model': [state], 'opt': argparse.Namespace(nhead=4), 'best_rsum': np.float64(512.5), 'epoch': 3}


STORAGES = {'0': NUMBERS, '1': FLAGS, '2': np.array([11], np.int64)}


def written(kind: str, pickled: bytes | None = None, storages: dict | None = None) -> bytes:
  pickled = torch_files.program(content()) if pickled is None else pickled
  storages = STORAGES if storages is None else storages
  if kind == 'legacy':
    return torch_files.legacy_file(pickled, storages)
  return torch_files.zip_file(pickled, {key: array.tobytes() for key, array in storages.items()})


@pytest.fixture(params=['zip', 'legacy'])
def kind(request):
  return request.param


@pytest.fixture
def read(tmp_path):
  def read(raw: bytes):
    (tmp_path / 'some.pth').write_bytes(raw)
    return read_checkpoint(tmp_path / 'some.pth')

  return read


def test_both_formats_give_the_arrays_bit_for_bit(kind, read):
  found = read(written(kind))
  state = found['model'][0]
  assert list(state) == ['weight', 'window', 'flags', 'scalar']
  assert state['weight'].shape == (5, 7)
  assert state['weight'].dtype == np.float32
  assert_array_equal(state['weight'], NUMBERS.reshape(5, 7))
  assert state['window'].shape == (2, 3)
  assert_array_equal(state['window'], [[3, 10, 17], [4, 11, 18]])
  assert state['flags'].dtype == bool
  assert_array_equal(state['flags'], FLAGS)
  assert state['scalar'].shape == ()
  assert state['scalar'] == 11
  assert isinstance(found['opt'], Namespace)
  assert found['opt'].values == {'nhead': 4}
  assert (found['best_rsum'], found['epoch']) == (512.5, 3)


def test_tensors_of_the_first_versions_are_read(kind, read):
  raw = torch_files.program(torch_files.OldRaw(NUMBERS, 3, (2, 3), (1, 7), key='0'))
  assert_array_equal(read(written(kind, raw, {'0': NUMBERS})), [[3, 10, 17], [4, 11, 18]])


def test_bfloat16_becomes_float32(kind, read):
  exact = np.array([1.5, -2.25, 3e38, np.inf]).astype(ml_dtypes.bfloat16)
  raw = torch_files.program(Raw(exact, 0, (4,), (1,), key='0', kind='BFloat16Storage'))
  found = read(written(kind, raw, {'0': exact}))
  assert found.dtype == np.float32
  assert_array_equal(found, exact.astype(np.float32))


def test_the_releases_checkpoint_holds_the_golden_weights(golden):
  found, weights = read_checkpoint(golden / 'model_best.pth'), np.load(golden / 'weights.npz')
  compared = 0
  for state, part in zip(found['model'], ('image_encoder', 'text_encoder'), strict=True):
    for name, array in state.items():
      if f'{part}.{name}' in weights:
        assert array.dtype == weights[f'{part}.{name}'].dtype
        assert_array_equal(array, weights[f'{part}.{name}'], strict=True)
        compared += 1
  assert compared == sum(not name.startswith('criterion') for name in weights)
  assert found['opt'].values['nhead'] == 4


@pytest.mark.parametrize(
  ('window', 'message'),
  [
    ((0, (36,), (1,)), 'more numbers than its storage of 35'),
    ((1, (5, 7), (7, 1)), 'reaches to 35 in a storage of 35'),
    ((0, (10**6, 10**6), (0, 0)), 'more numbers'),
    ((-1, (2,), (1,)), 'negative'),
    ((0, (2,), (-1,)), 'negative'),
    ((0, (-2,), (1,)), 'negative'),
    ((0, (2, 2), (1,)), 'not .storage, offset, size, stride'),
    ((36, (0,), (1,)), 'reaches to'),
    ((2**70, (1,), (1,)), 'reaches to'),
  ],
)
def test_windows_stay_inside_their_storage(kind, read, window, message):
  with pytest.raises(UserError, match=f'some.pth: .*{message}'):
    read(written(kind, torch_files.program(Raw(NUMBERS, *window, key='0')), {'0': NUMBERS}))


@pytest.mark.parametrize('claimed', [36, 2**40, 2**62, 2**80])
def test_a_storage_that_is_not_there_takes_no_memory(kind, read, claimed):
  raw = Raw(NUMBERS, 0, (2,), (1,), key='0')
  raw.storage = type('Claim', (), {'size': claimed, 'dtype': NUMBERS.dtype})()
  with pytest.raises(UserError, match='some.pth: '):
    read(written(kind, torch_files.program(raw), {'0': NUMBERS}))


def test_compressed_records_are_refused(read):
  raw = {key: array.tobytes() for key, array in STORAGES.items()}
  packed = torch_files.zip_file(torch_files.program(content()) + bytes(4096), raw, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match='is compressed'):
    read(packed)


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    (b'', 'an empty file'),
    (b'nothing of the kind', 'damaged or not a checkpoint'),
    (pickle.dumps(5), 'its magic number is missing'),
    (b'PK\x03\x04', 'not a zip file'),
  ],
)
def test_other_files_are_named(read, raw, message):
  with pytest.raises(UserError, match=f'some.pth: .*{message}'):
    read(raw)


def test_folders_and_missing_files_are_named(tmp_path):
  for path in (tmp_path, tmp_path / 'nothing.pth'):
    with pytest.raises(UserError, match='cannot be read'):
      read_checkpoint(path)


def global_(module: str, name: str) -> bytes:
  return f'c{module}\n{name}\n'.encode()


def stacked(module: str, name: str) -> bytes:
  return b''.join(b'\x8c' + bytes([len(text)]) + text.encode() for text in (module, name)) + b'\x93'


TOUCH = b"(S'touch SENTINEL'\ntR"
HOSTILE = {
  'os.system': global_('os', 'system') + TOUCH,
  'posix.system': global_('posix', 'system') + TOUCH,
  'builtins.eval': global_('builtins', 'eval') + TOUCH,
  'builtins.eval.__call__': stacked('builtins', 'eval.__call__') + TOUCH,
  'builtins.getattr': global_('builtins', 'getattr') + global_('os', 'system') + b'\x85R',
  'functools.partial': global_('functools', 'partial') + TOUCH,
  'copyreg._reconstructor': global_('copyreg', '_reconstructor') + TOUCH,
  'torch.storage._load_from_bytes': global_('torch.storage', '_load_from_bytes') + TOUCH,
  'torch.FloatStorage.__init__': stacked('torch', 'FloatStorage.__init__'),
  'numpy.core.multiarray._reconstruct': global_('numpy.core.multiarray', '_reconstruct'),
  "calls 'torch.FloatStorage'": global_('torch', 'FloatStorage') + b')R',
  "sets the state of 'argparse.Namespace'": global_('argparse', 'Namespace') + b'}b',
  "sets the state of 'torch._utils._rebuild_tensor_v2'": global_('torch._utils', '_rebuild_tensor_v2') + b'}b',
  'sets the state of a value of type dict': b'}}b',
  "INST 'os system'": b"(S'touch SENTINEL'\nios\nsystem\n",
  'opcode OBJ': b'(' + global_('argparse', 'Namespace') + b'o',
  'opcode NEWOBJ_EX': global_('argparse', 'Namespace') + b')}\x92',
  'opcode EXT1': b'\x82\x01',
  'opcode PERSID': b'Pstorage\n',
  "numpy.dtype 'O8'": global_('numpy', 'dtype') + b"(S'O8'\nK\x00K\x01tR",
  'a persistent id': b'K\x05Q',
  'a persistent id that': b"(S'storage'\n" + global_('torch', 'FloatStorage') + b"S'0'\nS'cpu'\nJ\xff\xff\xff\xfftQ",
  'Namespace with arguments': global_('argparse', 'Namespace') + b"(S'x'\ntR",
  'Namespace whose state': global_('argparse', 'Namespace') + b')R(K\x01K\x02db',
  'as a key': b'}))\x86K\x01s',
  'finds nothing': b'K\x01K\x02a',
  'has no mark': b'0a',
  'empty stack': b'a',
  'remembers nothing': b'h\x05',
  'not enough data|expected .* bytes': b'\x8e' + struct.pack('<Q', 2**62) + b'x',
  'expected 2147483647 bytes': b'B' + struct.pack('<I', 2**31 - 1) + b'x',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_programs_are_refused_by_name(kind, read, name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=f'some.pth: .*{name}'):
    read(written(kind, b'\x80\x02' + HOSTILE[name] + b'.', {}))
  assert not (tmp_path / 'SENTINEL').exists()


def test_a_plain_pickle_is_refused_by_the_name_in_it(read):
  with pytest.raises(UserError, match="refused: it asks for 'os.system'; accepted are .*collections.OrderedDict"):
    read(b'\x80\x02' + HOSTILE['os.system'] + b'.')


def test_programs_that_would_take_for_ever_or_all_memory_end(kind, read):
  twice = b''.join(b'q' + bytes([depth]) + b'h' + bytes([depth]) + b'\x86' for depth in range(100))
  with pytest.raises(UserError, match='as a key'):  # a hash of 2**100 steps
    read(written(kind, b'\x80\x02})' + twice + b'K\x01s.', {}))
  assert read(written(kind, b'\x80\x02}r\xff\xff\xff\x7f.', {})) == {}  # pickle would make a memo of 34 GB
  nested = b'\x80\x02' + b']' * 50_000 + b'a' * 49_999 + b'.'
  assert len(read(written(kind, nested, {}))) == 1
  recursive = read(written(kind, b'\x80\x02]q\x00h\x00a.', {}))
  assert recursive[0] is recursive
  copies = b'U\xffx'.replace(b'x', b'x' * 255) + b'q\x00'
  many = b'(' + (global_('_codecs', 'encode') + b'h\x00U\x06latin1\x86R') * 10_000 + b't.'
  with pytest.raises(UserError, match='operations'):
    read(written(kind, b'\x80\x02' + copies + many, {}))


EVENTS = []
DANGEROUS = (
  'os.system',
  'os.exec',
  'os.posix_spawn',
  'subprocess.Popen',
  'socket.',
  'exec',
  'compile',
  'import',
  'os.remove',
)


def watch(event, arguments):
  if EVENTS and EVENTS[0] == 'on':
    is_write = event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+')
    if is_write or event.startswith(DANGEROUS):
      EVENTS.append((event, str(arguments)[:80]))


@pytest.fixture(scope='module')
def watched():
  """What the interpreter is asked to do while a file is read; a hook cannot be taken off, so it can be silenced."""
  for name in ('ascii', 'cp437', 'latin-1', 'raw_unicode_escape', 'utf-8'):
    codecs.lookup(name)  # zipfile and pickletools decode with these; Python imports a codec when it is first used
  sys.addaudithook(watch)
  yield EVENTS
  EVENTS.clear()


def read_or_refuse(path, raw: bytes, watched) -> None:
  path.write_bytes(raw)
  watched[:] = ['on']
  try:
    read_checkpoint(path)
  except UserError as error:
    message = str(error)
    assert message.startswith(str(path))
    assert '\n' not in message
  finally:
    happened, watched[:] = watched[1:], []
  assert not happened


FUZZ = settings(
  derandomize=True, deadline=None, max_examples=150, database=None, suppress_health_check=list(HealthCheck)
)
EDIT = st.tuples(
  st.sampled_from(['flip', 'insert', 'delete', 'cut']), st.floats(0, 1, exclude_max=True), st.integers(0, 255)
)


def mutate(raw: bytes, edits) -> bytes:
  for how, where, value in edits:
    at = int(where * len(raw))
    changed = {
      'flip': raw[:at] + bytes([value]) + raw[at + 1 :],
      'insert': raw[:at] + bytes([value]) + raw[at:],
      'delete': raw[:at] + raw[at + 1 + value % 8 :],
      'cut': raw[:at],
    }
    raw = changed[how]
  return raw


@FUZZ
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused(kind, tmp_path, watched, edits):
  read_or_refuse(tmp_path / 'some.pth', mutate(written(kind), edits), watched)


@FUZZ
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_damaged_programs_in_whole_files_are_read_or_refused(kind, tmp_path, watched, edits):
  pickled = mutate(torch_files.program(content()), edits)
  read_or_refuse(tmp_path / 'some.pth', written(kind, pickled), watched)


PIECES = st.sampled_from(
  [*HOSTILE.values(), *(bytes([code]) for code in b'()]}0123aesutlRQbo.NK\x81\x85\x86\x92\x93\x94qhq')]
)


@FUZZ
@given(pieces=st.lists(PIECES | st.binary(max_size=3), max_size=12))
def test_programs_of_hostile_pieces_are_read_or_refused(kind, tmp_path, watched, pieces):
  read_or_refuse(tmp_path / 'some.pth', written(kind, b'\x80\x02' + b''.join(pieces) + b'.'), watched)


def test_the_watch_sees_what_it_must(tmp_path, watched):
  watched[:] = ['on']
  (tmp_path / 'written').write_bytes(b'')
  pickle.loads(b'cbuiltins\neval\n(V1+1\ntR.')
  seen, watched[:] = [event for event, _ in watched[1:]], []
  assert 'open' in seen
  assert 'exec' in seen


def test_named_globals_are_inert(read):
  found = read(torch_files.zip_file(torch_files.program({'dtype': Named('torch', 'float32')}), {}))
  assert found['dtype'].name == 'torch.float32'
  assert not callable(found['dtype'])
