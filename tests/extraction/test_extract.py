"""The whole way: what is written, what is skipped, and the same bytes wherever it was stopped."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_pictures
from PIL import Image
from small_encoder import GRID, SIZE, small_encoder

from hrem_jax import cli
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError
from hrem_jax.extraction import encoding, workshop
from hrem_jax.extraction import extract as extraction
from hrem_jax.extraction.extract import Options, extract, format_table
from hrem_jax.extraction.records import Record, Source
from hrem_jax.extraction.sources import read_source
from hrem_jax.extraction.splits import SplitRule
from hrem_jax.extraction.workshop import Workshop
from hrem_jax.locks import only_writer
from hrem_jax.ops.grids import pool_boxes

SPLITS = ('train', 'dev', 'test', 'gallery')


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  monkeypatch.setattr(extraction, 'CHUNK', 5)


@pytest.fixture(scope='module')
def encoder():
  return small_encoder()


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  """13 with captions, one of them copied small; 3 without; 3 that cannot be read; one turned by EXIF."""
  folder = small_pictures.make_folder(tmp_path_factory.mktemp('extract') / 'pictures', 13)
  small_pictures.make_folder(folder / 'more', 3, captions=0, first=50)
  small_pictures.random_picture(4).resize((24, 18)).save(folder / 'small_copy.jpg', quality=90)
  (folder / 'small_copy.txt').write_text('the only one\n')
  (folder / 'broken.jpg').write_bytes(b'nothing')
  (folder / 'cut.jpg').write_bytes((folder / 'picture_3.jpg').read_bytes()[:-99])
  (folder / 'empty.png').touch()
  (folder / 'empty.txt').write_text('never to be seen\n')
  exif = Image.Exif()
  exif[0x0112] = 6
  small_pictures.random_picture(99, (60, 36)).save(folder / 'turned.jpg', quality=95, exif=exif)
  (folder / 'turned.txt').write_text('one\ntwo\nthree\n')
  return folder


@pytest.fixture(scope='module')
def extracted(pictures, encoder, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(extraction, 'CHUNK', 5)
    output = tmp_path_factory.mktemp('undisturbed')
    return extract(read_source(pictures), encoder, output, progress=False)


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def ids_of(folder, split):
  return list(dict.fromkeys((folder / f'{split}_ids.txt').read_text().split()))


def test_every_readable_picture_is_in_one_split(extracted, pictures):
  folder = extracted.folder
  ids = {split: ids_of(folder, split) for split in SPLITS}
  assert ids['gallery'] == ['picture_50', 'picture_51', 'picture_52']
  captioned = [*(f'picture_{n}' for n in range(13)), 'small_copy', 'turned']
  assert sorted(ids['train'] + ids['dev'] + ids['test']) == sorted(captioned)
  assert next(s for s in ids if 'picture_4' in ids[s]) == next(s for s in ids if 'small_copy' in ids[s])
  skipped = [line.split('\t') for line in (folder / 'skipped.txt').read_text().splitlines()]
  assert [name for name, _ in skipped] == ['broken.jpg', 'cut.jpg', 'empty.png']
  assert 'truncated' in skipped[1][1]
  assert skipped[2][1] == 'empty'
  assert not (folder / 'gallery_caps.txt').exists()
  assert sorted(p.name for p in folder.parent.iterdir()) == ['own_precomp']


def test_features_boxes_and_embeddings_are_those_of_their_picture(extracted, pictures, encoder):
  for split in SPLITS:
    ids = ids_of(extracted.folder, split)
    features = np.load(extracted.folder / f'{split}_ims.npy')
    boxes = np.load(extracted.folder / f'{split}_boxes.npy')
    embeddings = np.load(extracted.folder / f'{split}_embeddings.npy')
    assert (features.shape, features.dtype, features.flags.c_contiguous) == ((len(ids), 25, SIZE), np.float16, True)
    assert (boxes.shape, boxes.dtype) == ((len(ids), 25, 4), np.float32)
    assert (embeddings.shape, embeddings.dtype) == ((len(ids), SIZE), np.float32)
    for row, picture_id in enumerate(ids):
      with Image.open(next(pictures.rglob(f'{picture_id}.jpg'))) as picture:
        picture.load()
      picture = picture.transpose(Image.Transpose.ROTATE_270) if picture_id == 'turned' else picture
      pixels = encoder.preprocessing(picture)
      expected = encoder.module.apply(encoder.variables, np.stack([pixels, pixels]))
      cells = np.asarray(expected.patches[0]).reshape(5, 2, 5, 2, SIZE).mean(axis=(1, 3)).reshape(25, SIZE)
      np.testing.assert_allclose(features[row], cells, atol=2e-3)
      np.testing.assert_allclose(embeddings[row], expected.embedding[0], atol=1e-5)
      whole = pool_boxes(encoder.preprocessing.grid_boxes(picture.size, (GRID, GRID)), (GRID, GRID), (5, 5))
      np.testing.assert_allclose(boxes[row], whole, atol=1e-6)
      with Image.open(extracted.folder / 'pictures' / f'{picture_id}.jpg') as small:
        assert small.size == picture.size


def test_what_is_written_loads_and_passes_the_check(extracted, capsys):
  num_captions = {'picture': 2, 'small_copy': 1, 'turned': 3}
  for name in ('train', 'dev', 'test'):
    split = load_split(extracted.folder, name)
    assert split.ids == ids_of(extracted.folder, name)
    expected = [num_captions[picture_id if picture_id in num_captions else 'picture'] for picture_id in split.ids]
    assert np.bincount(split.owner).tolist() == expected
    for caption, owner in zip(split.captions, split.owner, strict=True):
      picture_id = split.ids[owner]
      assert caption.endswith(f'of {picture_id.replace("_", " ")}') or picture_id in num_captions
    split.features.rows(np.arange(split.num_images))
  cli.run(['check', str(extracted.folder.parent)])
  shown = capsys.readouterr().out
  assert ': ready\n' in shown
  assert re.search(r'^gallery +3 +0 +- +- +25 25.0 25 ', shown, re.MULTILINE)


def test_the_provenance_and_the_table_count_what_there_is(extracted):
  provenance = json.loads((extracted.folder / 'provenance.json').read_text())
  assert provenance == extracted.provenance
  assert provenance['encoder'] == {'encoder': 'small', 'sizes': [SIZE], 'seed': 0}
  assert provenance['features'] == {
    'grid': [10, 10], 'regions': [5, 5], 'size': SIZE, 'type': 'float16', 'embedding_size': SIZE,
  }  # fmt: skip
  assert (provenance['skipped'], provenance['look_alikes']) == (3, 1)
  assert sum(count['pictures'] for count in provenance['counts'].values()) == 18
  assert sum(count['captions'] for count in provenance['counts'].values()) == 26 + 1 + 3
  assert provenance['source']['pictures'] == 21
  table = format_table(extracted).splitlines()
  assert table[0] == str(extracted.folder)
  assert table[1].split() == ['split', 'pictures', 'captions']
  assert table[5].split() == ['gallery', '3', '0']
  assert table[-1] == f'3 could not be read: {extracted.folder / "skipped.txt"}'


def test_the_same_again_has_nothing_to_do(extracted, pictures, encoder, monkeypatch):
  monkeypatch.setattr(encoding, 'open_picture', None)
  before = files(extracted.folder)
  again = extract(read_source(pictures), encoder, extracted.folder.parent, progress=False)
  assert again.provenance == extracted.provenance
  assert again.notes == [f'{extracted.folder}: was already there, nothing to do']
  assert files(extracted.folder) == before


class Killed(BaseException):
  """Not an Exception: nothing in the program may catch it."""


class Killer:
  """Ends the program at its `moment`-th operation on files below a folder; from then on all of them fail."""

  EVENTS = frozenset(['open', 'os.mkdir', 'os.rename', 'os.remove', 'os.truncate', 'shutil.rmtree'])

  def __init__(self):
    self.folder, self.moment, self.count = None, None, 0
    self.lock = threading.Lock()
    sys.addaudithook(self)

  def __call__(self, event, arguments):
    if self.folder is not None and event in self.EVENTS and str(arguments[0]).startswith(self.folder):
      with self.lock:
        self.count += 1
        is_over = self.moment is not None and self.count >= self.moment
      if is_over:
        raise Killed(event)

  def arm(self, folder, moment):
    self.folder, self.moment, self.count = str(folder), moment, 0

  def disarm(self) -> int:
    self.folder = None
    return self.count


@pytest.fixture(scope='module')
def killer():
  killer = Killer()
  yield killer
  killer.disarm()


def stop_and_go_on(killer, pictures, encoder, extracted, output, moment) -> None:
  source = read_source(pictures)
  killer.arm(output, moment)
  with pytest.raises(Killed):
    extract(source, encoder, output, progress=False)
  killer.disarm()
  if (output / 'own_precomp').exists():  # only the leftovers are to be removed
    assert files(output / 'own_precomp') == files(extracted.folder)
  result = extract(source, encoder, output, progress=False)
  assert files(result.folder) == files(extracted.folder)
  assert [path.name for path in output.iterdir()] == ['own_precomp']


def num_moments(killer, pictures, encoder, output) -> int:
  output.mkdir()
  killer.arm(output, None)
  extract(read_source(pictures), encoder, output, progress=False)
  return killer.disarm()


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(killer, pictures, encoder, extracted, tmp_path):
  last = num_moments(killer, pictures, encoder, tmp_path / 'counted')
  assert last > 60
  # Some of the way, and the steps at the end, which are the delicate ones.
  moments = {*np.linspace(2, last, 9).astype(int).tolist(), last - 7, last - 3, last - 1}
  for moment in sorted(moments):
    output = tmp_path / str(moment)
    output.mkdir()
    stop_and_go_on(killer, pictures, encoder, extracted, output, moment)


@pytest.mark.slow
def test_stopped_at_every_moment_it_goes_on_to_the_same_bytes(killer, pictures, encoder, extracted, tmp_path):
  for moment in range(2, num_moments(killer, pictures, encoder, tmp_path / 'counted') + 1):
    output = tmp_path / str(moment)
    output.mkdir()
    stop_and_go_on(killer, pictures, encoder, extracted, output, moment)


def test_chunks_that_are_done_are_not_done_again(pictures, encoder, extracted, tmp_path, monkeypatch):
  seen, original = [], encoding.open_picture

  def stops(path):
    seen.append(path.name)
    if path.name == 'picture_9.jpg':
      raise Killed
    return original(path)

  monkeypatch.setattr(encoding, 'open_picture', stops)
  with pytest.raises(Killed):
    extract(read_source(pictures), encoder, tmp_path, progress=False)
  journal = (tmp_path / 'own_precomp.unfinished' / 'journal.jsonl').read_text().splitlines()
  num_done = sum(len(json.loads(line)) for line in journal)
  assert num_done in (10, 15)
  seen.clear()
  monkeypatch.setattr(encoding, 'open_picture', lambda path: seen.append(path.name) or original(path))
  result = extract(read_source(pictures), encoder, tmp_path, progress=False)
  names = [record.path.name for record in read_source(pictures).records]
  assert sorted(seen) == sorted(names[num_done:])
  assert files(result.folder) == files(extracted.folder)


def test_a_line_of_the_journal_that_was_cut_off_does_not_count(pictures, encoder, extracted, tmp_path, monkeypatch):
  original = encoding.open_picture
  stops = lambda path: (_ for _ in ()).throw(Killed) if path.name == 'turned.jpg' else original(path)  # noqa: E731
  with monkeypatch.context() as patch:
    patch.setattr(encoding, 'open_picture', stops)
    with pytest.raises(Killed):
      extract(read_source(pictures), encoder, tmp_path, progress=False)
  journal = tmp_path / 'own_precomp.unfinished' / 'journal.jsonl'
  journal.write_bytes(journal.read_bytes()[:-9])
  result = extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert files(result.folder) == files(extracted.folder)


PROGRAM = """
import pathlib, sys, time
from small_encoder import small_encoder
from hrem_jax.extraction import extract as extraction
from hrem_jax.extraction.sources import read_source
from hrem_jax.extraction.workshop import Workshop
extraction.CHUNK = 5
if sys.argv[3] == 'stuck':  # after the first chunk, until somebody ends it
  add = Workshop.add
  Workshop.add = lambda self, *chunk: (add(self, *chunk), time.sleep(3600))
extraction.extract(read_source(pathlib.Path(sys.argv[1])), small_encoder(), pathlib.Path(sys.argv[2]), progress=False)
"""


def test_a_real_kill_loses_at_most_a_chunk(pictures, extracted, tmp_path):
  tests = pathlib.Path(__file__).parents[1]
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tests), str(tests.parent)])}
  command = [sys.executable, '-c', PROGRAM, str(pictures), str(tmp_path)]
  process = subprocess.Popen([*command, 'stuck'], env=environment)
  journal = tmp_path / 'own_precomp.unfinished' / 'journal.jsonl'
  while not (journal.exists() and journal.stat().st_size):
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert not (tmp_path / 'own_precomp').exists()
  assert journal.stat().st_size
  subprocess.run([*command, 'free'], env=environment, check=True, timeout=600)
  assert files(tmp_path / 'own_precomp') == files(extracted.folder)


def begun(pictures, encoder, output, monkeypatch) -> None:
  """An extraction that was stopped at its first picture."""
  with monkeypatch.context() as patch:
    patch.setattr(encoding, 'open_picture', lambda path: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
      extract(read_source(pictures), encoder, output, progress=False)


CHANGES = {
  'regions': (lambda: dict(options=Options(regions=4)), r'features.regions is \[2, 2\], was \[5, 5\]'),
  'shares': (lambda: dict(options=Options(rule=SplitRule(dev=0.2))), r'splits.dev is 0.2, was 0.1'),
  'size': (lambda: dict(options=Options(pictures_size=99)), r'pictures_size is 99, was 512'),
  'encoder': (lambda: dict(encoder=small_encoder(seed=1)), r'encoder.seed is 1, was 0'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_other_settings_are_refused_before_and_after_the_end(
  pictures, encoder, extracted, tmp_path, monkeypatch, change
):
  arguments, message = CHANGES[change]
  keywords = dict(encoder=encoder) | arguments()
  begun(pictures, encoder, tmp_path, monkeypatch)
  with pytest.raises(UserError, match=rf'own_precomp\.unfinished: was begun with other settings \(.*{message}'):
    extract(read_source(pictures), output=tmp_path, progress=False, **keywords)
  with pytest.raises(UserError, match=rf'own_precomp: holds another data set \(.*{message}'):
    extract(read_source(pictures), output=extracted.folder.parent, progress=False, **keywords)


def test_another_source_is_refused(pictures, encoder, extracted, tmp_path):
  other = small_pictures.make_folder(tmp_path / 'pictures', 5)
  with pytest.raises(UserError, match=r'holds another data set \(source\.captions is 10, was'):
    extract(read_source(other), encoder, extracted.folder.parent, progress=False)


def test_the_output_may_lie_in_the_pictures(encoder, tmp_path, monkeypatch):
  """Again, after a kill, and under another name: no picture of ours is taken for one of theirs."""
  small_pictures.make_folder(tmp_path, 4, captions=1)
  begun(tmp_path, encoder, tmp_path, monkeypatch)
  first = extract(read_source(tmp_path), encoder, tmp_path, progress=False)
  again = extract(read_source(tmp_path), encoder, tmp_path, progress=False)
  assert again.notes[-1] == f'{first.folder}: was already there, nothing to do'
  other = extract(read_source(tmp_path), encoder, tmp_path, name='other', progress=False)
  assert other.provenance['source']['pictures'] == first.provenance['source']['pictures'] == 4


def test_files_of_others_in_an_unfinished_extraction_stay(pictures, encoder, extracted, tmp_path, monkeypatch):
  begun(pictures, encoder, tmp_path, monkeypatch)
  unfinished = tmp_path / 'own_precomp.unfinished'
  (unfinished / 'precious').write_text('mine')
  (unfinished / 'result' / '.Trashes').mkdir()
  (unfinished / '.1234abcd.journal.jsonl').write_text('of a stop')
  (unfinished / 'result' / '.1234abcd.x.jpg').write_text('of a stop')
  result = extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert [path.name for path in unfinished.iterdir()] == ['precious']
  (result.folder / '.Trashes').rmdir()
  assert files(result.folder) == files(extracted.folder)


def test_two_at_once_are_refused(pictures, encoder, tmp_path, monkeypatch):
  begun(pictures, encoder, tmp_path, monkeypatch)
  with (
    only_writer(tmp_path / 'own_precomp.unfinished'),
    pytest.raises(UserError, match='unfinished: another process writes there'),
  ):
    extract(read_source(pictures), encoder, tmp_path, progress=False)


def test_folders_of_others_are_left_alone(pictures, encoder, tmp_path):
  (tmp_path / 'own_precomp').mkdir()
  (tmp_path / 'own_precomp' / 'precious').touch()
  with pytest.raises(UserError, match=r'own_precomp: holds something that no extraction made'):
    extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert [path.name for path in tmp_path.rglob('*')] == ['own_precomp', 'precious']


def test_a_data_set_that_was_removed_is_made_anew_with_its_pictures(
  pictures, encoder, extracted, tmp_path, monkeypatch
):
  """Stopped between the last two steps, and then the data set is deleted by hand."""
  with monkeypatch.context() as patch:
    patch.setattr(workshop, 'remove_rest', lambda *_, **__: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
      extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert files(tmp_path / 'own_precomp') == files(extracted.folder)
  shutil.rmtree(tmp_path / 'own_precomp')
  result = extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert files(result.folder) == files(extracted.folder)


def test_a_full_disk_is_a_message_and_no_loss(pictures, encoder, extracted, tmp_path, monkeypatch):
  original, calls = os.fsync, []

  def full(descriptor):
    calls.append(descriptor)
    if len(calls) == 5:
      raise OSError(28, 'No space left on device', None)
    return original(descriptor)

  with monkeypatch.context() as patch:
    patch.setattr(workshop.os, 'fsync', full)
    with pytest.raises(UserError, match=r'No space left on device; what is done is kept, the same command goes on$'):
      extract(read_source(pictures), encoder, tmp_path, progress=False)
  assert files(extract(read_source(pictures), encoder, tmp_path, progress=False).folder) == files(extracted.folder)


def test_nothing_readable_and_too_little_are_errors(encoder, tmp_path):
  folder = tmp_path / 'pictures'
  folder.mkdir()
  (folder / 'a.jpg').write_bytes(b'x')
  (folder / 'b.jpg').write_bytes(b'y')
  with pytest.raises(
    UserError, match=r'pictures: none of its 2 pictures can be read; the first, a\.jpg: not one of JPEG'
  ):
    extract(read_source(folder), encoder, tmp_path, progress=False)
  small_pictures.make_folder(folder, 2)
  with pytest.raises(
    UserError, match=r'^2 different picture\(s\) with captions, expected at least 3 for train, test and'
  ):
    extract(read_source(folder), encoder, tmp_path, name='few', progress=False)
  rule = SplitRule(dev=0, test=0)
  result = extract(read_source(folder), encoder, tmp_path, name='all', options=Options(rule=rule), progress=False)
  assert list(result.provenance['counts']) == ['train']
  assert result.notes == ['no pictures for dev and test: training wants train, dev and test']


def test_an_encoder_that_broke_is_named_with_the_picture(pictures, tmp_path):
  broken = small_encoder(has_embedding=False)
  kernel = broken.variables['params']['Dense_0']['kernel']
  broken.variables['params']['Dense_0']['kernel'] = kernel * 1e7  # finite, but not in float16
  with pytest.raises(
    UserError, match=r'more/picture_50\.jpg: the encoder gives features that are not finite as float16'
  ):
    extract(read_source(pictures), broken, tmp_path, progress=False)


def test_without_embedding_and_small_pictures(pictures, extracted, tmp_path):
  options = Options(regions=100, pictures_size=0)
  result = extract(read_source(pictures), small_encoder(has_embedding=False), tmp_path, options=options, progress=False)
  names = set(files(result.folder))
  assert not any('embeddings' in name or 'pictures/' in name for name in names)
  assert np.load(result.folder / 'gallery_ims.npy').shape == (3, 100, SIZE)


def test_only_pictures_make_a_gallery_that_passes_the_check(encoder, tmp_path, capsys):
  small_pictures.make_folder(tmp_path / 'pictures', 7, captions=0)
  small_pictures.random_picture(3, (900, 300)).save(tmp_path / 'pictures' / 'wide.jpg')
  result = extract(read_source(tmp_path / 'pictures'), encoder, tmp_path, progress=False)
  assert list(result.provenance['counts']) == ['gallery']
  assert result.notes == []
  with Image.open(result.folder / 'pictures' / 'wide.jpg') as small:
    assert small.size == (512, 171)
  cli.run(['check', str(result.folder)])
  assert ': ready\n' in capsys.readouterr().out
  ids = (result.folder / 'gallery_ids.txt').read_text()
  (result.folder / 'gallery_ids.txt').write_text(ids + 'one_more\n')
  with pytest.raises(SystemExit):
    cli.run(['check', str(result.folder)])
  assert 'gallery_ids.txt: 9 ids, expected one per image (8)' in capsys.readouterr().out


def test_look_alikes_across_given_splits_are_told(encoder, tmp_path):
  small_pictures.make_folder(tmp_path, 4, captions=0)
  small_pictures.random_picture(0).resize((96, 72)).save(tmp_path / 'twin.png')
  rows = ['picture_0.jpg,train', 'picture_1.jpg,dev', 'picture_2.jpg,test', 'picture_3.jpg,train', 'twin.png,test']
  (tmp_path / 'x.csv').write_text('path,split,title\n' + ''.join(f'{row},x\n' for row in rows))
  result = extract(read_source(tmp_path / 'x.csv'), encoder, tmp_path, progress=False)
  assert ids_of(result.folder, 'test') == ['picture_2', 'twin']
  assert result.notes == [
    '1 group(s) of pictures that look alike lie in several of the splits that the source gives, such as '
    'picture_0.jpg (train) and twin.png (test): figures on them are too good'
  ]


@pytest.mark.parametrize('regions', [0, 7, 101])
def test_regions_that_the_grid_cannot_give(pictures, encoder, tmp_path, regions):
  message = rf'^--regions {regions}: the grid of 10 x 10 cells gives 1, 4, 9, 16, 25, 36, 49, 64, 81, 100$'
  with pytest.raises(UserError, match=message):
    extract(read_source(pictures), encoder, tmp_path, options=Options(regions=regions), progress=False)


def test_names_that_lead_elsewhere(pictures, encoder, tmp_path):
  with pytest.raises(UserError, match=r"^--name '\.\./x': expected letters, digits"):
    extract(read_source(pictures), encoder, tmp_path, name='../x', progress=False)


def test_the_same_source_has_the_same_digest_wherever_it_lies(pictures, tmp_path):
  copy = shutil.copytree(pictures, tmp_path / 'pictures')
  assert read_source(copy).digest() == read_source(pictures).digest()
  (copy / 'picture_0.txt').write_text('another caption\n')
  assert read_source(copy).digest() != read_source(pictures).digest()


def test_names_that_are_no_text_are_skipped_and_listed_like_others(encoder, tmp_path):
  folder = small_pictures.make_folder(tmp_path / os.fsdecode(b'pict\xfcres'), 3)
  os.rename(folder / 'picture_0.jpg', folder / os.fsdecode(b'caf\xe9\n.jpg'))
  (folder / os.fsdecode(b'\xe9\tx.jpg')).write_bytes(b'nothing')
  rule = SplitRule(dev=0, test=0)
  result = extract(read_source(folder), encoder, tmp_path, options=Options(rule=rule), progress=False)
  assert (result.folder / 'gallery_ids.txt').read_text() == 'caf_\n'
  assert (result.folder / 'skipped.txt').read_text().startswith('x.jpg\tnot one of JPEG')
  again = extract(read_source(folder), encoder, tmp_path, options=Options(rule=rule), progress=False)
  assert again.notes[-1].endswith('nothing to do')


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('settings.json', '{"format": ', 'settings.json: not JSON'),
    ('settings.json', '[1]', 'settings.json: JSON of type list, expected an object'),
    ('journal.jsonl', '[{"size": [1, 2]}]\n{"a\n', 'journal.jsonl: line 2 is damaged, expected what is done'),
    ('journal.jsonl', '[3]\n', 'journal.jsonl: line 1 is damaged'),
    ('journal.jsonl', '{}\n', 'journal.jsonl: line 1 is damaged'),
  ],
)
def test_a_damaged_workshop_is_named(tmp_path, name, content, message):
  """What a stop left, and something else then changed."""
  with Workshop(tmp_path / 'x.unfinished', {'format': 1}, {}):
    pass
  (tmp_path / 'x.unfinished' / name).write_text(content)
  with pytest.raises(UserError, match=message):
    Workshop(tmp_path / 'x.unfinished', {'format': 1}, {})


def test_a_caption_of_endless_length_is_named(tmp_path):
  with pytest.raises(UserError, match=r"table.csv: a caption of 'a.jpg' has 80,000 bytes, expected at most 65,536"):
    Source('table', tmp_path / 'table.csv', [Record(tmp_path / 'a.jpg', 'a.jpg', ('a dog', 'x' * 80_000), None)])
