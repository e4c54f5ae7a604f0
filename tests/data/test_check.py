"""Every way for a data set to be wrong, with the file and the line or row; and all of them at once."""

import pathlib
import shutil
import tempfile

import hypothesis
import numpy as np
import pytest
import synthetic
from hypothesis import strategies

from hrem_jax import cli
from hrem_jax.data import check_split
from hrem_jax.data.check import examine, format_counts
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError

REGIONS, SIZE = 3, 5


def save(folder, name, content):
  """A `.npy` file, or lines."""
  if isinstance(content, np.ndarray):
    np.save(folder / name, content)
  else:
    (folder / name).write_text(''.join(f'{line}\n' for line in content), encoding='utf-8')


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  """The field's conventions, one split each: five captions an image, rows five times, ragged with ids and counts."""
  folder, rng = tmp_path_factory.mktemp('check') / 'good_precomp', np.random.default_rng(0)
  folder.mkdir()
  save(folder, 'train_ims.npy', rng.normal(size=(4, REGIONS, SIZE)).astype(np.float32))
  save(folder, 'train_caps.txt', [f'a caption {number}' for number in range(20)])
  save(folder, 'train_ids.txt', ['a', 'b', 'c', 'd'])
  save(folder, 'dev_ims.npy', np.repeat(rng.normal(size=(3, REGIONS, SIZE)).astype(np.float32), 5, axis=0))
  save(folder, 'dev_caps.txt', ['two words'] * 15)
  features = rng.normal(size=(3, REGIONS, SIZE)).astype(np.float16)
  features[1, 2] = np.nan  # not a real region
  save(folder, 'test_ims.npy', features)
  save(folder, 'test_num_regions.npy', np.array([3, 2, 1]))
  save(folder, 'test_caps.txt', ['one'] * 6 + ['and four words here'])
  save(folder, 'test_ids.txt', ['x', 'y', 'y', 'y', 'z', 'z', 'z'])
  save(folder, 'train_embeddings.npy', rng.normal(size=(4, 6)).astype(np.float32))
  boxes = np.tile(np.float32([0, 0.25, 0.5, 1]), (15, REGIONS, 1))
  save(folder, 'dev_boxes.npy', boxes)
  boxes = boxes[:3].copy()
  boxes[1, 2] = np.nan  # of what is no real region
  save(folder, 'test_boxes.npy', boxes)
  return folder


@pytest.fixture
def folder(good, tmp_path):
  return pathlib.Path(shutil.copytree(good, tmp_path / 'good_precomp'))


def problems_of(folder):
  return [problem.replace(f'{folder}/', '') for problem in examine(folder, widest=9).problems]


def edit(folder, name, change):
  """`change` of the array, or of the list of lines; what it returns takes their place, None keeps what it changed."""
  path = folder / name
  content = np.load(path) if name.endswith('.npy') else path.read_text('utf-8').splitlines()
  changed = change(content)
  save(folder, name, content if changed is None else changed)


def put(index, value):
  return lambda content: content.__setitem__(index, value)


def cut(path, size):
  path.write_bytes(path.read_bytes()[:size])


KINDS = {
  'no features': (lambda f: (f / 'dev_ims.npy').unlink(), ['dev_ims.npy: no such file']),
  'no captions': (lambda f: (f / 'dev_caps.txt').unlink(), ['dev_caps.txt: no such file']),
  'no split': (
    lambda f: [path.unlink() for path in f.glob('dev_*')],
    ['dev_ims.npy: no such file', 'dev_caps.txt: no such file'],
  ),
  'ids alone': (
    lambda f: save(f, 'val_ids.txt', ['v']),
    ['val_ims.npy: no such file', 'val_caps.txt: no such file'],
  ),
  'cut off': (
    lambda f: cut(f / 'train_ims.npy', 300),
    ['train_ims.npy: not a whole .npy file (300 bytes): mmap length is greater than file size'],
  ),
  'no .npy': (
    lambda f: (f / 'train_ims.npy').write_bytes(b'\x93NUMPY'),
    ['train_ims.npy: not a whole .npy file (6 bytes): EOF: reading magic string, expected 8 bytes got 6'],
  ),
  'two dimensions': (
    lambda f: edit(f, 'train_ims.npy', lambda a: a[:, 0]),
    ['train_ims.npy: shape (4, 5), expected 3 dimensions'],
  ),
  'nothing in it': (
    lambda f: edit(f, 'train_ims.npy', lambda a: a[:, :0]),
    ['train_ims.npy: shape (4, 0, 5), expected at least one image, region and feature'],
  ),
  'integers': (
    lambda f: edit(f, 'train_ims.npy', lambda a: a.astype(np.int8)),
    ['train_ims.npy: type int8, expected float16 or float32'],
  ),
  'double precision': (
    lambda f: edit(f, 'train_ims.npy', lambda a: a.astype(np.float64)),
    ['train_ims.npy: type float64, expected float16 or float32'],
  ),
  'other byte order': (
    lambda f: edit(f, 'train_ims.npy', lambda a: a.astype('>f4')),
    ['train_ims.npy: type >f4, expected float16 or float32'],
  ),
  'Fortran order': (
    lambda f: edit(f, 'train_ims.npy', np.asfortranarray),
    ['train_ims.npy: Fortran order, expected C order: a row would lie scattered over the whole file'],
  ),
  'other size': (
    lambda f: edit(f, 'test_ims.npy', lambda a: a[..., :4]),
    ['test_ims.npy: features of size 4, but train_ims.npy has 5'],
  ),
  'NaN': (
    lambda f: edit(f, 'train_ims.npy', put((2, 1, 3), np.nan)),
    ['train_ims.npy: row 2 (counted from 0) holds nan at region 1, feature 3'],
  ),
  'infinities': (
    lambda f: edit(f, 'test_ims.npy', put((slice(None), 0, 4), -np.inf)),
    [f'test_ims.npy: row {row} (counted from 0) holds -inf at region 0, feature 4' for row in range(3)],
  ),
  'last real region': (
    lambda f: edit(f, 'test_ims.npy', put((1, 1, 0), np.inf)),
    ['test_ims.npy: row 1 (counted from 0) holds inf at region 1, feature 0'],
  ),
  'embeddings of other pictures': (
    lambda f: edit(f, 'train_embeddings.npy', lambda a: a[1:]),
    ['train_embeddings.npy: 3 rows of float32, expected 4 of float32, as many as train_ims.npy has'],
  ),
  'embeddings that are not finite': (
    lambda f: edit(f, 'train_embeddings.npy', put((slice(1, 3), 5), np.inf)),
    [f'train_embeddings.npy: row {row} (counted from 0) holds NaN or infinite numbers' for row in (1, 2)],
  ),
  'boxes of other regions': (
    lambda f: edit(f, 'test_boxes.npy', lambda a: a[:, 1:]),
    ['test_boxes.npy: float32 (3, 2, 4), expected floats (3, 3, 4)'],
  ),
  'boxes in pixels, and upside down': (
    lambda f: [edit(f, 'test_boxes.npy', put((0, 2), 30)), edit(f, 'dev_boxes.npy', put((10, 1, 3), 0.2))],
    [
      f'{file}: row {row} (counted from 0) holds other boxes than x0 <= x1, y0 <= y1 as fractions 0..1'
      for file, row in (('dev_boxes.npy', 10), ('test_boxes.npy', 0))
    ],
  ),
  'a copy of a row differs': (
    lambda f: edit(f, 'dev_ims.npy', put((7, 0, 0), 9.0)),
    [
      'dev_ims.npy: row 7 (counted from 0) differs from the first of its 5, though there are as many rows as captions '
      'and others do repeat'
    ],
  ),
  'too many regions': (
    lambda f: edit(f, 'test_num_regions.npy', put(1, 4)),
    [
      'test_num_regions.npy: row 1 has 4 regions, expected 1 to 3',
      'test_ims.npy: row 1 (counted from 0) holds nan at region 2, feature 0',
    ],
  ),
  'no regions': (
    lambda f: edit(f, 'test_num_regions.npy', put(slice(1, 3), [0, -1])),
    [
      'test_num_regions.npy: row 1 has 0 regions, expected 1 to 3',
      'test_num_regions.npy: row 2 has -1 regions, expected 1 to 3',
    ],
  ),
  'counts of other images': (
    lambda f: edit(f, 'test_num_regions.npy', lambda a: a[:2]),
    ['test_num_regions.npy: 2 numbers of type int64, expected 3 integers'],
  ),
  'counts that are no integers': (
    lambda f: edit(f, 'test_num_regions.npy', lambda a: a.astype(np.float32)),
    ['test_num_regions.npy: 3 numbers of type float32, expected 3 integers'],
  ),
  'counts in a table': (
    lambda f: edit(f, 'test_num_regions.npy', lambda a: a[:, None]),
    ['test_num_regions.npy: shape (3, 1), expected 1 dimensions'],
  ),
  'empty captions': (
    lambda f: edit(f, 'train_caps.txt', put(slice(6, 8), ['', '  '])),
    ['train_caps.txt: line 7 is empty', 'train_caps.txt: line 8 is empty'],
  ),
  'an empty line at the end': (
    lambda f: edit(f, 'test_caps.txt', lambda lines: [*lines, '']),
    [
      'test_caps.txt: line 8 is empty',
      '{folder}: 8 captions do not divide into the 3 images of test_ims.npy; for other than equal numbers give '
      'test_ids.txt one id per caption',
      'test_ids.txt: 7 ids, expected one per image (3) or one per caption (8)',
    ],
  ),
  'no line at all': (
    lambda f: (f / 'dev_caps.txt').write_text(''),
    [
      'dev_caps.txt: line 1 is empty',
      '{folder}: 1 captions do not divide into the 15 images of dev_ims.npy; for other than equal numbers give '
      'dev_ids.txt one id per caption',
    ],
  ),
  'not UTF-8': (
    lambda f: (f / 'dev_caps.txt').write_bytes(b'x\n' * 3 + b'caf\xe9\n' + b'x\n' * 10 + b'\xff\n'),
    ['dev_caps.txt: line 4 is not UTF-8: byte 0xe9', 'dev_caps.txt: line 15 is not UTF-8: byte 0xff'],
  ),
  'a caption too few': (
    lambda f: edit(f, 'train_caps.txt', lambda lines: lines[:-1]),
    [
      '{folder}: 19 captions do not divide into the 4 images of train_ims.npy; for other than equal numbers give '
      'train_ids.txt one id per caption'
    ],
  ),
  'an id too few': (
    lambda f: edit(f, 'train_ids.txt', lambda lines: lines[:-1]),
    ['train_ids.txt: 3 ids, expected one per image (4) or one per caption (20)'],
  ),
  'an id twice': (
    lambda f: edit(f, 'train_ids.txt', put(3, 'b')),
    ["train_ids.txt: line 4: 'b' is already on line 2, for another image; each image has its own"],
  ),
  'an empty id': (lambda f: edit(f, 'train_ids.txt', put(2, ' ')), ['train_ids.txt: line 3 is empty']),
  'ids not UTF-8': (
    lambda f: (f / 'train_ids.txt').write_bytes(b'a\nb\n\xc3\nd\n'),
    ['train_ids.txt: line 3 is not UTF-8: byte 0xc3'],
  ),
  'ids not in runs': (
    lambda f: edit(f, 'test_ids.txt', put(slice(None), ['x', 'y', 'y', 'x', 'x', 'x', 'x'])),
    ["test_ids.txt: line 4: 'x' is already on line 1, for another image; the ids of an image stand in one run"],
  ),
  'more runs than images': (
    lambda f: edit(f, 'test_ids.txt', put(slice(None), ['x', 'y', 'y', 'x', 'z', 'z', 'z'])),
    [
      '{folder}: 7 captions do not divide into the 3 images of test_ims.npy; for other than equal numbers give '
      'test_ids.txt one id per caption',
      "test_ids.txt: line 4: 'x' is already on line 1, for another image; the ids of an image stand in one run",
    ],
  ),
  'an image with two ids': (
    lambda f: save(f, 'dev_ids.txt', ['p'] * 4 + ['q'] * 6 + ['r'] * 3 + ['s'] * 2),
    [
      "dev_ids.txt: line 5 is 'q', but line 1, of the same image, 'p'",
      "dev_ids.txt: line 14 is 's', but line 11, of the same image, 'r'",
      "dev_ids.txt: line 15 is 's', but line 11, of the same image, 'r'",
    ],
  ),
  'train and test share images': (
    lambda f: edit(f, 'test_ids.txt', put(slice(1, 7), ['d', 'd', 'd', 'b', 'b', 'b'])),
    [
      "test_ids.txt: line 2: 'd' is also in train_ids.txt, line 4",
      "test_ids.txt: line 5: 'b' is also in train_ids.txt, line 2",
    ],
  ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_is_named_with_its_place_and_nothing_else_is(folder, kind):
  breaks, expected = KINDS[kind]
  breaks(folder)
  found = [problem.replace(str(folder), '{folder}') for problem in problems_of(folder)]
  assert found == expected


def mutate(path: pathlib.Path, how: str, place: float, value: int) -> None:
  """Changes one file: bytes of it, or the order and number of its lines."""
  content = bytearray(path.read_bytes())
  index = int(place * len(content))
  if how == 'cut':
    del content[index:]
  elif how == 'byte':
    content[index] = value
  elif how == 'gone':
    path.unlink()
    return
  else:
    lines = bytes(content).split(b'\n')
    line = lines.pop(int(place * len(lines)))
    lines[value % (len(lines) + 1) : value % (len(lines) + 1)] = {'move': [line], 'twice': [line, line], 'drop': []}[
      how
    ]
    content = b'\n'.join(lines)
  path.write_bytes(content)


def is_refused(folder) -> bool:
  try:
    for split in ('train', 'dev', 'test'):
      features = load_split(folder, split).features
      features.rows(np.arange(len(features)))
  except UserError:
    return True
  return False


@hypothesis.example(name='test_num_regions.npy', how='byte', place=0.0546875, value=1)  # in the header
@hypothesis.given(
  name=strategies.sampled_from(
    ['train_ims.npy', 'train_caps.txt', 'train_ids.txt', 'test_num_regions.npy', 'test_ids.txt']
  ),
  how=strategies.sampled_from(['cut', 'byte', 'gone', 'move', 'twice', 'drop']),
  place=strategies.floats(0, 1, exclude_max=True),
  value=strategies.integers(0, 255),
)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_whatever_training_refuses_is_found(good, name, how, place, value):
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(shutil.copytree(good, pathlib.Path(temporary) / 'good_precomp'))
    mutate(folder / name, how, place, value)
    if is_refused(folder):
      assert problems_of(folder)
    else:
      examine(folder, widest=9)


def test_a_good_data_set_has_no_problems_and_is_counted(good):
  examination = examine(good, widest=9)
  assert (examination.problems, examination.warnings) == ([], [])
  lines = [line.split() for line in format_counts(examination.splits).splitlines()]
  size = {name: f'{(good / f"{name}_ims.npy").stat().st_size:,}' for name in ('train', 'dev', 'test')}
  assert lines[1:4] == [
    ['train', '4', '20', '5', '5.0', '5', '3', '3.0', '3', '3', '3.0', '3', '5', 'float32', size['train']],
    ['dev', '3', '15', '5', '5.0', '5', '2', '2.0', '2', '3', '3.0', '3', '5', 'float32', size['dev']],
    ['test', '3', '7', '1', '2.3', '3', '1', '1.4', '4', '1', '2.0', '3', '5', 'float16', size['test']],
  ]


def test_several_problems_at_once_are_all_listed(folder):
  kinds = (
    'too many regions',
    'empty captions',
    'a copy of a row differs',
    'an id twice',
    'ids not in runs',
    'ids alone',
  )
  for kind in kinds:
    KINDS[kind][0](folder)
  edit(folder, 'train_ims.npy', put((0, 2, 1), np.nan))
  expected = {problem for kind in kinds for problem in KINDS[kind][1]}
  expected.add('train_ims.npy: row 0 (counted from 0) holds nan at region 2, feature 1')
  found = problems_of(folder)
  assert set(found) == expected
  assert len(found) == len(expected) == 10


def test_rows_are_examined_in_chunks_of_any_size(folder, monkeypatch):
  edit(folder, 'dev_ims.npy', put((slice(3, 12), 1, 2), np.nan))
  expected = problems_of(folder)
  assert len(expected) == 9 + 2 + 3  # rows 3 and 4 are not like row 0, and rows 12 to 14 not like row 10
  told = []
  monkeypatch.setattr(check_split, 'CHUNK_BYTES', 1)
  examine(folder, widest=9, scanned=told.append)
  assert problems_of(folder) == expected
  row_bytes = {'train': 60, 'dev': 60, 'test': 30}
  assert told == [4 * row_bytes['train'], *[5 * row_bytes['dev']] * 3, 3 * row_bytes['test']]


def test_images_without_repeats_need_not_be_alike(folder):
  """As many captions as images, a number that five divides."""
  save(folder, 'val_ims.npy', np.random.default_rng(1).normal(size=(10, REGIONS, SIZE)).astype(np.float32))
  save(folder, 'val_caps.txt', ['a picture'] * 10)
  assert problems_of(folder) == []
  edit(folder, 'val_ims.npy', put(slice(5, 10), 1.0))  # one group of five equal rows, and four rows that are not
  assert [problem.split(' (')[0] for problem in problems_of(folder)] == [
    f'val_ims.npy: row {row}' for row in (1, 2, 3, 4)
  ]
  save(folder, 'val_ids.txt', [f'v{row}' for row in range(10)])  # says that they are ten images
  assert problems_of(folder) == []


def test_splits_of_one_kind_may_overlap_and_row_numbers_say_nothing(folder):
  for path in folder.glob('test_*'):
    shutil.copy(path, folder / path.name.replace('test', 'testall'))
  assert problems_of(folder) == []
  save(folder, 'train_ids.txt', ['0', '1', '2', '3'])
  save(folder, 'dev_ids.txt', [str(caption // 5) for caption in range(15)])
  assert problems_of(folder) == []
  save(folder, 'dev_ids.txt', ['7'] * 5 + ['3'] * 5 + ['8'] * 5)
  assert problems_of(folder) == ["dev_ids.txt: line 6: '3' is also in train_ids.txt, line 4"]


def test_captions_longer_than_the_widest_bucket_are_a_warning(folder):
  edit(folder, 'dev_caps.txt', put(3, 'a dog, a cat: two'))  # seven words and signs, and start and end
  edit(folder, 'dev_caps.txt', put(8, "a dog, a cat's toy"))  # one more
  examination = examine(folder, widest=9)
  assert examination.problems == []
  assert examination.warnings == [
    f'{folder}/dev_caps.txt: line 9 has 10 words, start and end included; the widest bucket holds 9, '
    'the others are cut off'
  ]


def test_values_far_outside_the_others_are_a_warning(folder):
  path = folder / 'train_ims.npy'
  features = np.load(path).astype(np.float32)
  features[3, 1, 2] = -1e9
  np.save(path, features)
  found = examine(folder, widest=64)
  assert found.problems == []
  assert [line.split(', far')[0] for line in found.warnings if 'far outside' in line] == [
    f'{path}: row 3 (counted from 0) has values up to 1e+09'
  ]
  np.save(path, np.full_like(features, 1e20))  # among themselves they are alike, and their squares are not finite
  assert len([line for line in examine(folder, widest=64).warnings if 'far outside' in line]) == len(features)


def test_the_command(folder, capsys):
  synthetic.write_data_set(folder.parent)
  cli.run(['check', str(folder)])
  printed = capsys.readouterr().out.splitlines()
  assert printed[0] == f'{folder}: ready'
  assert [line.split()[0] for line in printed[1:5]] == ['split', 'train', 'dev', 'test']
  edit(folder, 'dev_caps.txt', put(3, 'long ' * 150))
  edit(folder, 'train_ims.npy', put((slice(1, 3), 0, 0), np.nan))
  with pytest.raises(SystemExit) as end:
    cli.run(['check', str(folder.parent)])  # both
  assert end.value.code == 2
  printed = capsys.readouterr().out.splitlines()
  assert printed[:5] == [
    f'warning: {folder}/dev_caps.txt: line 4 has 152 words, start and end included; the widest bucket holds 128, '
    'the others are cut off',
    f'{folder}/train_ims.npy: row 1 (counted from 0) holds nan at region 0, feature 0',
    f'{folder}/train_ims.npy: row 2 (counted from 0) holds nan at region 0, feature 0',
    f'{folder}: 2 problem(s)',
    f'{folder.parent}/tiny_precomp: ready',
  ]
  with pytest.raises(SystemExit) as end:
    cli.run(['check', str(folder / 'nowhere')])
  assert end.value.code == 2
  assert capsys.readouterr().err == f'hrem_jax: {folder}/nowhere: no such folder\n'
