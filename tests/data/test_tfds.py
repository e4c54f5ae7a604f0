"""The precomputed layout as a TFDS data set: the same bits come back, and a damaged or half-made one is named."""

import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import synthetic
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from etils.epath import testing

from hrem_jax import cli
from hrem_jax.data.pipeline import TrainingBatches
from hrem_jax.data.precomputed import data_folder, load_split
from hrem_jax.data.sources import open_split
from hrem_jax.data.tfds import convert, version_folder
from hrem_jax.data.tfds_split import load_tfds_split
from hrem_jax.data.tokenizer import build_vocabulary, tokenize
from hrem_jax.errors import UserError
from hrem_jax.methods.registry import validate
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.run import load_test_split
from hrem_jax.sharding import data_mesh
from hrem_jax.training.neighbours import mean_regions
from hrem_jax.training.setup import first_state, prepare

ROOT = pathlib.Path(__file__).parents[2]
IMAGE_BYTES = synthetic.NUM_REGIONS * synthetic.REGION_SIZE * 4


def write_ragged(folder, split='train', *, num_images=23, seed=7):
  """Float16, some regions not real (and NaN there), one to six captions an image, ids, letters of other alphabets."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(num_images, 5, 3)).astype(np.float16)
  num_regions = rng.integers(1, 6, num_images)
  features[np.arange(5) >= num_regions[:, None]] = np.nan
  counts = rng.integers(1, 7, num_images)
  owner = np.repeat(np.arange(num_images), counts)
  folder.mkdir(parents=True, exist_ok=True)
  np.save(folder / f'{split}_ims.npy', features)
  np.save(folder / f'{split}_num_regions.npy', num_regions)
  captions = [f'ein Mädchen, 猫 {number} "a\\b"' + ' x' * (number % 9) for number in range(len(owner))]
  (folder / f'{split}_caps.txt').write_text('\n'.join(captions), encoding='utf-8')
  (folder / f'{split}_ids.txt').write_text('\n'.join(f'bild/{image}' for image in owner), encoding='utf-8')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """`tiny_precomp`, `ragged_precomp`, and both in `tfds/`."""
  folder = tmp_path_factory.mktemp('data')
  synthetic.write_data_set(folder)
  write_ragged(folder / 'ragged_precomp')
  written = convert(folder, folder / 'tfds', shard_bytes=9 * IMAGE_BYTES)
  assert written == [folder / 'tfds/region_captions' / name / '1.0.0' for name in ('ragged', 'tiny')]
  return folder


@pytest.fixture
def copy(data, tmp_path):
  """A copy of `tiny` to be damaged: its folder."""
  shutil.copytree(data / 'tfds/region_captions/tiny', tmp_path / 'region_captions/tiny')
  return tmp_path / 'region_captions/tiny/1.0.0'


def assert_same_bits(ours, theirs):
  assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
  assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
  ('name', 'split', 'num_images'),
  [('tiny', 'train', 40), ('tiny', 'dev', 11), ('tiny', 'test', 13), ('ragged', 'train', 23)],
)
def test_a_round_trip_keeps_every_bit(data, name, split, num_images):
  source, converted = load_split(data / f'{name}_precomp', split), load_tfds_split(str(data / 'tfds'), name, split)
  assert converted.captions == source.captions
  assert converted.ids == source.ids
  assert_same_bits(converted.owner, source.owner)
  assert (converted.name, converted.num_images) == (split, num_images)
  for attribute in ('max_regions', 'region_size', 'dtype'):
    assert getattr(converted.features, attribute) == getattr(source.features, attribute)
  rng = np.random.default_rng(0)
  for index in (np.arange(num_images)[::-1], rng.integers(0, num_images, 17), np.array([3, 3, 0, 3]), np.arange(0)):
    for ours, theirs in zip(converted.features.rows(index), source.features.rows(index), strict=True):
      assert_same_bits(ours, theirs)


def batches_of(split, config, **arguments):
  tokenizer = build_vocabulary(split.captions)
  return TrainingBatches(split, tokenize(split.captions, tokenizer), tokenizer, config, **arguments)


@pytest.mark.parametrize('name', ['tiny', 'ragged'])
@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('process', [(0, 1), (1, 2)])
def test_training_batches_are_those_of_the_memory_map_bit_for_bit(data, name, pack, process):
  config = synthetic.tiny_config(data)
  config.data.update(name=name, pack=pack)
  source = batches_of(open_split(config.data, 'train'), config, process=process, num_devices=2)
  config.data.update(source='tfds', directory=str(data / 'tfds'))
  converted = batches_of(open_split(config.data, 'train'), config, process=process, num_devices=2)
  assert converted.describe() == source.describe()
  steps_per_epoch = source.sampler.steps_per_epoch
  for step in (*range(2 * steps_per_epoch), 7 * steps_per_epoch + 1):
    ours, theirs = jax.tree.leaves(converted.batch(step)), jax.tree.leaves(source.batch(step))
    assert len(ours) == len(theirs) == (9 if pack else 5)
    jax.tree.map(assert_same_bits, ours, theirs)


def test_a_run_goes_on_from_the_other_source_and_evaluates_the_same(data, tmp_path):
  config = synthetic.tiny_config(data)
  started = prepare(config, tmp_path / 'run')
  config.data.update(source='tfds', directory=str(data / 'tfds'))
  setup = prepare(config, tmp_path / 'run')  # nothing of what is trained has changed
  assert setup.run.config.data.source == 'tfds'
  jax.tree.map(assert_same_bits, *(jax.tree.leaves(which.batches.batch(3)) for which in (setup, started)))
  assert_same_bits(mean_regions(setup.train.features), mean_regions(started.train.features))
  mesh = data_mesh()
  variables, evaluator = first_state(setup, mesh).variables, Evaluator(setup.run, mesh)
  metrics = evaluator.evaluate(variables, load_test_split(setup.run.config), protocol='all')
  assert metrics == evaluator.evaluate(variables, load_test_split(started.run.config), protocol='all')
  assert evaluator.evaluate(variables, setup.selection, protocol='all') == evaluator.evaluate(
    variables, started.selection, protocol='all'
  )
  assert 0 < metrics['rsum'] < 600


def test_any_tfds_reads_it(data):
  """Without a class of ours: in the order of the source, real regions only, in shards of nearly the same size."""
  source = tfds.data_source('region_captions/ragged', split='train', data_dir=data / 'tfds')
  regions = np.load(data / 'ragged_precomp/train_ims.npy')
  num_regions = np.load(data / 'ragged_precomp/train_num_regions.npy')
  lines = (data / 'ragged_precomp/train_caps.txt').read_text('utf-8').split('\n')
  ids = (data / 'ragged_precomp/train_ids.txt').read_text('utf-8').split('\n')
  captions = []
  for row, example in enumerate(source):
    assert example['image_id'].decode() == f'bild/{row}'
    assert example['num_regions'] == num_regions[row]
    assert_same_bits(example['regions'], regions[row, : num_regions[row]])
    captions += [caption.decode() for caption in example['captions']]
    assert ids[len(captions) - 1] == f'bild/{row}'
  assert captions == lines
  info = tfds.builder_from_directory(version_folder(data / 'tfds', 'tiny')).info
  assert {name: list(split.shard_lengths) for name, split in info.splits.items()} == {
    'dev': [6, 5],
    'test': [6, 7],
    'train': [8] * 5,
  }
  assert info.metadata['source'] == 'tiny_precomp'
  assert info.metadata['splits']['dev'] == {
    'num_images': 11,
    'num_captions': 55,
    'max_regions': 7,
    'rows_per_image_in_source': 5,
    'ids_from': 'row numbers',
  }


def nothing_left(output: pathlib.Path) -> bool:
  return not [path for path in output.rglob('*') if path.is_file() or 'incomplete' in path.name]


def test_files_whose_owner_has_no_name(data, tmp_path, monkeypatch):
  def unknown(number):
    raise KeyError(f'getpwuid(): uid not found: {number}')

  monkeypatch.setattr('pwd.getpwuid', unknown)
  split = load_tfds_split(str(data / 'tfds'), 'tiny', 'train')
  assert len(split.features.rows(np.arange(3))[0]) == 3
  with pytest.raises(UserError, match='1.0.0: cannot be written: TFDS wants a user with a name, this id has none'):
    convert(data / 'tiny_precomp', tmp_path)
  assert nothing_left(tmp_path)


def test_an_interrupted_conversion_leaves_nothing_and_can_be_run_again(data, tmp_path, monkeypatch):
  split_class = type(load_split(data / 'tiny_precomp', 'train').features)
  rows, calls = split_class.rows, []

  def interrupted(self, index):
    calls.append(index)
    if len(calls) == 6:  # of shards
      raise KeyboardInterrupt
    return rows(self, index)

  convert_again = functools.partial(convert, data / 'tiny_precomp', tmp_path, shard_bytes=9 * IMAGE_BYTES)
  with monkeypatch.context() as patch:
    patch.setattr(split_class, 'rows', interrupted)
    with pytest.raises(KeyboardInterrupt):
      convert_again()
  assert nothing_left(tmp_path)
  with pytest.raises(UserError, match='tiny/1.0.0: no TFDS data set there'):
    load_tfds_split(str(tmp_path), 'tiny', 'train')
  convert_again()
  assert load_tfds_split(str(tmp_path), 'tiny', 'train').num_images == 40


KILLED = """
import pathlib, sys, time
from hrem_jax.data.features import RegionFeatures
from hrem_jax.data.tfds import convert

rows = RegionFeatures.rows
def slow(self, index):
  print('rows', file=sys.__stdout__, flush=True)
  time.sleep(0.05)
  return rows(self, index)
RegionFeatures.rows = slow
convert(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), shard_bytes=600)
"""


def test_a_killed_conversion_leaves_no_half_data_set_and_can_be_run_again(data, tmp_path):
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', KILLED, str(data / 'tiny_precomp'), str(tmp_path)]
  process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  for _ in range(5):
    assert process.stdout.readline() == 'rows\n'
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  process.stdout.close()
  assert not nothing_left(tmp_path)
  assert not (tmp_path / 'region_captions/tiny/1.0.0').exists()
  with pytest.raises(UserError, match='tiny/1.0.0: no TFDS data set there'):
    load_tfds_split(str(tmp_path), 'tiny', 'train')
  convert(data / 'tiny_precomp', tmp_path)
  assert [path.name for path in (tmp_path / 'region_captions/tiny').iterdir()] == ['1.0.0']
  assert load_tfds_split(str(tmp_path), 'tiny', 'dev').num_images == 11


def change(folder, how):
  if how == 'not finite':
    features = np.load(folder / 'train_ims.npy')
    features[31, 2, 5] = np.inf
    np.save(folder / 'train_ims.npy', features)
  elif how == 'other type':
    np.save(folder / 'test_ims.npy', np.load(folder / 'test_ims.npy').astype(np.float16))
  elif how == 'other size':
    np.save(folder / 'test_ims.npy', np.load(folder / 'test_ims.npy')[..., :11])
  elif how == 'no captions':
    (folder / 'dev_caps.txt').unlink()
  elif how == 'no features':
    [path.unlink() for path in folder.glob('*_ims.npy')]
  elif how in ('all', 'train.v2'):
    (folder / 'test_ims.npy').rename(folder / f'{how}_ims.npy')
    (folder / 'test_caps.txt').rename(folder / f'{how}_caps.txt')


@pytest.mark.parametrize(
  ('how', 'message'),
  [
    ('not finite', r'train_ims.npy: row 31 \(counted from 0\) holds NaN or infinite'),
    ('other type', r'train_ims.npy: float32 features of size 13, but those of dev_ims.npy are float32|'
      r'test_ims.npy: float16 features of size 13, but those of dev_ims.npy are float32 of size 13'),
    ('other size', r'test_ims.npy: float32 features of size 11, but those of dev_ims.npy are float32 of size 13'),
    ('no captions', r'dev_caps.txt not found'),
    ('no features', r'train_ims.npy not found'),
    ('all', r"'all' cannot be the name of a split"),
    ('train.v2', r"'train.v2' cannot be the name of a split"),
  ],
)  # fmt: skip
def test_a_source_with_a_mistake_is_named_and_nothing_is_written(data, tmp_path, how, message):
  folder = tmp_path / 'tiny_precomp'
  shutil.copytree(data / 'tiny_precomp', folder)
  change(folder, how)
  with pytest.raises(UserError, match=message):
    convert(folder, tmp_path / 'out')
  assert nothing_left(tmp_path / 'out')


def test_of_several_data_sets_those_that_are_there_are_left_alone(data, tmp_path):
  convert(data / 'ragged_precomp', tmp_path)
  written = tmp_path / 'region_captions/ragged/1.0.0/metadata.json'
  written.write_text('{}')
  assert convert(data, tmp_path) == [tmp_path / 'region_captions/tiny/1.0.0']
  assert written.read_text() == '{}'


def test_the_command(data, tmp_path, capsys):
  arguments = ['convert-data', str(data / 'ragged_precomp'), f'--output={tmp_path}']
  cli.run(arguments)
  printed = capsys.readouterr()
  assert printed.out == f'{tmp_path}/region_captions/ragged/1.0.0\n'
  assert '23/23' in printed.err  # the progress bar; TFDS says nothing of downloads
  with pytest.raises(SystemExit) as end:
    cli.run(arguments)
  assert end.value.code == 2
  assert capsys.readouterr().err.startswith(f'hrem_jax: {tmp_path}/region_captions/ragged/1.0.0: is there already')


def test_an_unknown_source_is_an_error(data):
  config = synthetic.tiny_config(data)
  config.data.source = 'tfrecord'
  with pytest.raises(UserError, match="config.data.source is 'tfrecord', expected 'precomputed' or 'tfds'"):
    validate(config)


def test_places_that_cannot_be_written_are_named(data, tmp_path):
  source = data / 'tiny_precomp'
  with pytest.raises(UserError, match='tiny/1.0.0: is there already; remove it to convert'):
    convert(source, data / 'tfds')
  (tmp_path / 'file').write_text('a letter')
  with pytest.raises(UserError, match='file/region_captions/tiny/1.0.0: cannot be written'):
    convert(source, tmp_path / 'file')
  with pytest.raises(UserError, match='gs:/bucket/data: an address, expected a path of this machine'):
    convert(source, pathlib.Path('gs://bucket/data'))
  with pytest.raises(UserError, match='nowhere: no such folder'):
    convert(tmp_path / 'nowhere', tmp_path)
  with pytest.raises(UserError, match=r'neither SPLIT_ims.npy and SPLIT_caps.txt nor folders NAME_precomp in it'):
    convert(tmp_path, tmp_path)


def test_a_full_disk_is_an_error_and_leaves_nothing(data, tmp_path, monkeypatch):
  """ArrayRecord says so at the end of a shard, with a RuntimeError."""
  writer_class = array_record_data_source.array_record_module.ArrayRecordWriter

  class FullDisk:
    def __init__(self, path, options):
      self._writer = writer_class(path, options)
      self.write = self._writer.write

    def close(self):
      self._writer.close()
      raise RuntimeError('write() failed: No space left on device;\nat byte 4096')

  monkeypatch.setattr(array_record_data_source.array_record_module, 'ArrayRecordWriter', FullDisk)
  with pytest.raises(UserError, match='cannot be written: write.. failed: No space left on device; at byte 4096$'):
    convert(data / 'tiny_precomp', tmp_path)
  assert nothing_left(tmp_path)


SHARD = 'region_captions-train.array_record-00001-of-00005'


def truncate(path: pathlib.Path, size: int) -> None:
  path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda f: shutil.rmtree(f), r'tiny/1.0.0: no TFDS data set there; `python -m hrem_jax convert-data` makes one$'),
    (lambda f: (f / 'dataset_info.json').unlink(), r'tiny/1.0.0: no TFDS data set there'),
    (lambda f: (f / 'dataset_info.json').write_text('{'), r'tiny/1.0.0: cannot be opened: ParseError: '),
    (lambda f: (f / 'features.json').unlink(), r'tiny/1.0.0: cannot be opened: ValueError: '),
    (lambda f: (f / 'metadata.json').write_text('{'), r'tiny/1.0.0: cannot be opened: JSONDecodeError: '),
    (lambda f: (f / 'metadata.json').unlink(), r"tiny/1.0.0: cannot be opened: KeyError: 'splits'"),
    (lambda f: (f / SHARD).unlink(), SHARD + r': no such file; was the data set copied as a whole\?'),
    (lambda f: truncate(f / SHARD, 70_000), SHARD + r': 70000 bytes, expected 131072; was the data set copied'),
    (lambda f: (f / 'captions-train.json').unlink(), r'captions-train.json: no such file; was'),
    (lambda f: truncate(f / 'captions-train.json', 99), r'captions-train.json: 99 bytes, expected \d+; was'),
  ],
)
def test_a_damaged_data_set_is_named_before_anything_is_trained(copy, damage, message):
  damage(copy)
  with pytest.raises(UserError, match=message):
    load_tfds_split(str(copy.parents[2]), 'tiny', 'train')


def rewrite(path: pathlib.Path, old: bytes, new: bytes) -> None:
  assert len(old) == len(new)
  assert old in path.read_bytes()
  path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    (b'"0", "1"', b'"0",   1', r'captions-train.json: expected lists of strings'),
    (b'"0", "1"', b'"0_, _1"', r'captions-train.json: 39 ids and captions of 40 images, expected those of 40'),
  ],
)
def test_texts_of_the_same_size_that_do_not_fit_are_named(copy, old, new, message):
  rewrite(copy / 'captions-train.json', old, new)
  with pytest.raises(UserError, match=message):
    load_tfds_split(str(copy.parents[2]), 'tiny', 'train')


def test_more_regions_than_the_description_says_are_named(copy):
  path = copy / 'metadata.json'
  path.write_text(path.read_text().replace('"max_regions": 7', '"max_regions": 3'))
  split = load_tfds_split(str(copy.parents[2]), 'tiny', 'train')
  with pytest.raises(UserError, match='row 2 of the split has 7 regions, expected at most 3'):
    split.features.rows(np.array([2]))


def test_other_splits_are_read_where_one_is_damaged(copy):
  (copy / SHARD).unlink()
  assert load_tfds_split(str(copy.parents[2]), 'tiny', 'dev').num_images == 11
  with pytest.raises(UserError, match=r"no split 'testall' in this TFDS data set, which has dev, test, train$"):
    load_tfds_split(str(copy.parents[2]), 'tiny', 'testall')


def test_changed_bytes_are_noticed_and_named(copy):
  path = copy / SHARD
  content = bytearray(path.read_bytes())
  # Within the records of the shard; its end holds the index, its middle is padding.
  for place in range(65, 800):
    content[place] ^= 0xFF
  path.write_bytes(content)
  features = load_tfds_split(str(copy.parents[2]), 'tiny', 'train').features
  assert features.rows(np.array([7, 16]))[0].shape == (2, 7, 13)  # neighbours of the shard's rows 8 to 15
  with pytest.raises(UserError, match=SHARD + ': damaged or missing: row 8 of the split cannot be read: .*[Cc]orrupt'):
    features.rows(np.array([16, 8, 0]))


def test_an_address_reaches_tfds_and_array_record_as_it_is(data, monkeypatch):
  """A bucket that is a folder behind epath's back."""
  address, seen = 'gs://bucket/some data', []

  def local(path) -> str:
    seen.append(os.fspath(path))
    return seen[-1].replace(address, str(data / 'tfds'))

  def redirected(original, path, *arguments, **options):
    return original(local(path), *arguments, **options)

  reader_class = array_record_data_source.array_record_module.ArrayRecordReader
  monkeypatch.setattr(
    array_record_data_source.array_record_module,
    'ArrayRecordReader',
    lambda path, **options: reader_class(local(path), **options),
  )
  config = synthetic.tiny_config(data)
  source = open_split(config.data, 'train')
  config.data.update(source='tfds', directory=address)
  mocked = dict.fromkeys(('open', 'exists', 'stat', 'isdir', 'listdir', 'glob'), redirected)
  with testing.mock_epath(**mocked):
    split = open_split(config.data, 'train')
    for ours, theirs in zip(split.features.rows(np.arange(40)), source.features.rows(np.arange(40)), strict=True):
      assert_same_bits(ours, theirs)
  assert {path for path in seen if not path.startswith(f'{address}/region_captions/tiny/1.0.0')} == set()
  assert f'{address}/region_captions/tiny/1.0.0/{SHARD}' in seen


def test_the_documents_example_runs(data):
  (code,) = [
    block.split('```')[0]
    for block in (ROOT / 'docs/data.md').read_text('utf-8').split('```python\n')[1:]
    if 'data_source' in block
  ]
  names = {}
  exec(code.replace("'tfds'", repr(str(data / 'tfds'))).replace('/f30k', '/ragged'), names)
  assert names['regions'].shape == (np.load(data / 'ragged_precomp/train_num_regions.npy')[0], 3)
  assert names['captions'][0] == load_split(data_folder(ragged_config(data)), 'train').captions[0]


def ragged_config(data):
  config = synthetic.tiny_config(data)
  config.data.name = 'ragged'
  return config.data


def test_metadata_lists_every_file_but_itself(data):
  folder = data / 'tfds/region_captions/ragged/1.0.0'
  files = json.loads((folder / 'metadata.json').read_text())['files']
  sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
  assert files == {name: size for name, size in sizes.items() if name not in ('metadata.json', 'dataset_info.json')}
