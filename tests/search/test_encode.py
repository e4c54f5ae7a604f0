"""A data set into an index: what is new, changed and there already; stops; mistakes."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import synthetic

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.search import encode as encoding
from hrem_jax.search.encode import Encoded, encode
from hrem_jax.search.index import open_index
from hrem_jax.search.run_encoder import RunEncoder
from hrem_jax.search.searcher import open_searcher


@pytest.fixture(scope='module')
def encoder(world):
  return RunEncoder(world / 'run')


@pytest.fixture
def data(world, tmp_path):
  return pathlib.Path(shutil.copytree(world / 'data', tmp_path / 'data')) / 'own_precomp'


def changed(data, split, row):
  features = np.load(data / f'{split}_ims.npy')
  features[row] += 1
  np.save(data / f'{split}_ims.npy', features)


def vectors(index):
  opened = open_index(index)
  return {name: opened.vectors(name)[0] for name in opened.ids()}


def test_what_is_new_changed_and_there_already(encoder, data, tmp_path, monkeypatch):
  index, embedded = tmp_path / 'index', []
  real = encoder.pictures
  monkeypatch.setattr(encoder, 'pictures', lambda content: embedded.append(len(content[0])) or real(content))
  assert encode(encoder, data, index, splits=['train', 'gallery'], progress=False) == Encoded(new=11, total=11)
  assert encode(encoder, data, index, splits=['gallery'], progress=False) == Encoded(unchanged=4, total=11)
  assert sum(embedded) == 11
  before = vectors(index)
  changed(data, 'gallery', 2)
  captions, ids = ((data / f'train_{name}.txt').read_text().splitlines() for name in ('caps', 'ids'))
  (data / 'train_caps.txt').write_text('\n'.join(['another one', *captions[1:]]) + '\n')
  assert encode(encoder, data, index, progress=False) == Encoded(new=5, replaced=2, unchanged=9, total=16)
  assert sum(embedded) == 18
  after = vectors(index)
  assert [name for name in before if np.abs(before[name] - after[name]).max() > 1e-4] == ['picture_52']
  assert open_index(index).item(ids[0]).captions[0] == 'another one'


def test_it_goes_on_after_a_stop(encoder, data, tmp_path, monkeypatch):
  monkeypatch.setattr(encoding, 'KEPT', 3)
  monkeypatch.setattr(encoding, 'READ', 3)
  index, count, real = tmp_path / 'index', 0, encoder.pictures

  def stops(content):
    nonlocal count
    count += len(content[0])
    if count > 6:
      raise KeyboardInterrupt
    return real(content)

  monkeypatch.setattr(encoder, 'pictures', stops)
  with pytest.raises(KeyboardInterrupt):
    encode(encoder, data, index, splits=['train'], progress=False)
  assert open_index(index).state().pictures == 6
  count = -100
  assert encode(encoder, data, index, splits=['train'], progress=False) == Encoded(new=1, unchanged=6, total=7)
  assert count == -99


def test_a_data_set_that_has_moved(encoder, data, tmp_path):
  """The same command says where it is now; nothing is encoded again."""
  index = tmp_path / 'index'
  encode(encoder, data, index, progress=False)
  moved = data.parent.rename(tmp_path / 'elsewhere')
  assert open_searcher(index).item('picture_5').picture is None
  assert encode(encoder, moved, index, progress=False) == Encoded(unchanged=16, total=16)
  assert open_searcher(index).item('picture_5').picture == moved / 'own_precomp/pictures/picture_5.jpg'


def test_the_fields_layout_without_ids(encoder, tmp_path):
  """Rows that stand five times, and no names: the split and the row's number are the name."""
  synthetic.write_data_set(tmp_path / 'data')
  for split in ('train', 'dev', 'test'):
    path = tmp_path / f'data/tiny_precomp/{split}_ims.npy'
    np.save(path, np.tile(np.load(path), 15)[..., :192])
  done = encode(encoder, tmp_path / 'data', tmp_path / 'index', progress=False, dtype='float16')
  assert done == Encoded(new=64, total=64)
  index = open_index(tmp_path / 'index')
  assert {name.split('_')[0] for name in index.ids()} == {'train', 'dev', 'test'}
  assert len(index.item('dev_10').captions) == 5
  assert index.state().about.pictures is None
  assert index.state().about.dtype == 'float16'


def put(name, content):
  return lambda data: (data / name).write_text(content)


def provenance(change):
  def write(data):
    content = json.loads((data / 'provenance.json').read_text())
    change(content)
    (data / 'provenance.json').write_text(json.dumps(content))

  return write


def same_ids(data):
  ids = (data / 'test_ids.txt').read_text().splitlines()
  lines = (data / 'train_ids.txt').read_text().splitlines()
  (data / 'train_ids.txt').write_text('\n'.join([ids[0], ids[0], *lines[2:]]) + '\n')


MISTAKES = [
  (lambda data: None, dict(splits=['test', 'gallry']), "no split 'gallry', there are dev, gallery, test, train"),
  (lambda data: None, dict(dtype='float16'), 'index: holds float32, not float16: make another index'),
  (lambda data: shutil.rmtree(data), {}, 'data: neither SPLIT_ims.npy'),
  (lambda data: [path.unlink() for path in data.glob('*_ims.npy')], {}, 'no SPLIT_ims.npy there'),
  (same_ids, {}, "test and train have different pictures with the id 'picture_"),
  (put('gallery_ids.txt', 'a\nb\nc\na\n'), {}, "gallery_ids.txt: two pictures have the id 'a'"),
  (put('gallery_ids.txt', 'a\nb\n'), {}, r'gallery_ids.txt: 2 ids, expected one per image \(4\)'),
  (provenance(lambda p: p['encoder'].update(encoder='else')), {}, 'other features than .*run was trained on'),
  (
    lambda data: np.save(data / 'dev_ims.npy', np.load(data / 'dev_ims.npy')[..., 1:]),
    {},
    'dev_ims.npy: features of size 191, .*run was trained on 192',
  ),
]


@pytest.mark.parametrize(('breaks', 'options', 'message'), MISTAKES)
def test_mistakes(encoder, data, tmp_path, breaks, options, message):
  index = tmp_path / 'index'
  encode(encoder, data, index, splits=['test'], progress=False)
  before = open_index(index).ids(), open_index(index).state().about
  breaks(data)
  with pytest.raises(UserError, match=message):
    encode(encoder, data.parent, index, progress=False, **options)
  assert (open_index(index).ids(), open_index(index).state().about) == before


def test_features_that_the_index_does_not_hold(encoder, data, world, tmp_path):
  """A run that does not know what it was trained on takes all; an index does not mix them."""
  run = pathlib.Path(shutil.copytree(world / 'run', tmp_path / 'run'))
  (run / 'provenance.json').unlink()
  unknowing = RunEncoder(run)
  encode(unknowing, data, tmp_path / 'index', splits=['test'], progress=False)
  provenance(lambda p: p['encoder'].update(preprocessing_sha256='0'))(data)
  with pytest.raises(UserError, match='own_precomp: other features than those of .*index .encoder.preproc'):
    encode(unknowing, data, tmp_path / 'index', progress=False)


def test_several_data_sets_in_a_folder(encoder, data, tmp_path):
  shutil.copytree(data, data.parent / 'other_precomp')
  assert encode(encoder, data.parent, tmp_path / 'index', splits=['test'], progress=False).new == 1  # that of the run
  shutil.move(data, data.parent / 'third_precomp')
  with pytest.raises(UserError, match=r'holds 2 data sets \(other_precomp, third_precomp\): name one'):
    encode(encoder, data.parent, tmp_path / 'index', progress=False)


def test_commands(world, data, tmp_path, capsys):
  index = tmp_path / 'index'
  cli.run(['encode', str(world / 'run'), '--data', str(data), '--index', str(index), '--split', 'gallery,test'])
  assert capsys.readouterr().out == f'{index}: 5 pictures (5 new, 0 replaced, 0 were there)\n'
  cli.run(['search', str(index), '--text', 'caption of picture 3', '--count', '2', '--json'])
  found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [list(each) for each in found] == [['rank', 'score', 'id', 'captions', 'picture']] * 2
  assert [each['rank'] for each in found] == [1, 2]
  assert pathlib.Path(found[0]['picture']).is_file()
  cli.run(['search', str(index), '--text', '"picture 51"', '--words', '--only-captions', 'CAPTION'])
  assert capsys.readouterr().out == ''
  cli.run(['search', str(index), '--text', 'picture_51', '--words'])
  assert capsys.readouterr().out.split()[2] == 'picture_51'
  cli.run(['search', str(index), '--text', 'caption of a Zebra, or 3', '--count', '1'])
  assert capsys.readouterr().err == 'hrem_jax: not in the vocabulary, so without meaning here: a, Zebra, or\n'
  cli.run(['search', str(index), '--image', str(world / 'pictures/picture_51.jpg'), '--count', '1'])
  rank, score, name, path = capsys.readouterr().out.split()
  assert (rank, score, name) == ('1', '1.000', 'picture_51')
  assert path == str((data / 'pictures/picture_51.jpg').resolve())
  cli.run(['search', str(index), '--id', 'picture_50', '--count', '9', '--recall'])
  outputs = capsys.readouterr()
  assert len([line for line in outputs.out.splitlines() if line.startswith('  ') and ' picture_' in line[3:22]]) >= 4
  assert 'recall@9 of exact against exact search: 1.000 (1 captions)' in outputs.err
  cli.run(['forget', '--index', str(index), 'picture_50', 'picture_51'])
  assert capsys.readouterr().out == f'{index}: 3 pictures (2 deleted)\n'
  cli.run(['check', str(index)])
  assert f'{index}: whole; 3 pictures, 1 embedding(s) of size 32 each in float32, encoder' in capsys.readouterr().out
  cli.run(['forget', '--index', str(index), 'picture_50', 'picture_51'])
  outputs = capsys.readouterr()
  assert outputs.err == f"hrem_jax: not in {index} (any more): 'picture_50', 'picture_51'\n"
  assert outputs.out == f'{index}: 3 pictures (0 deleted)\n'
  content = bytearray(index.read_bytes())
  content[content.rindex(b'caption 0 of')] ^= 1
  index.write_bytes(content)
  with pytest.raises(SystemExit):
    cli.run(['check', str(index)])
  assert 'is not what was written' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    ('search W/index', 'nothing to search for: expected --text, --image, --id or --recall'),
    ('search W/index --id dog --words', '--words and --both look for a text: expected --text'),
    ('search W/index --text dog --count 0', '--count 0: expected 1 or more'),
    ('search W/nothing --text dog', 'nothing: no index there'),
    ('search W/index --image W/nothing.jpg', 'nothing.jpg: not a picture that can be read: no such file'),
    ('search W/index --image W/text.jpg', 'text.jpg: not a picture that can be read: not one of JPEG'),
    ('search W/index --text dog --image W/text.jpg', 'argument --image: not allowed with argument --text'),
    ('search W/index --text dog --backend annoy', "argument --backend: invalid choice: 'annoy'"),
    ('forget --index W/nothing picture', 'nothing: no index there'),
    ('encode --data W/data --index W/index', r'encode: with what\? Expected the WORKDIR of a run, or --encoder'),
  ],
)
def test_mistakes_of_commands(tmp_path, command, message, capsys):
  (tmp_path / 'text.jpg').write_text('no picture')
  with pytest.raises(SystemExit):
    cli.run(command.replace('W', str(tmp_path)).split())
  assert re.search(message, capsys.readouterr().err)
