"""Folders, tables, JSON lines and Karpathy's files: what is read, and what is wrong with which line."""

import csv
import json
import pathlib
import re
import tempfile

import hypothesis
import pytest
import small_pictures
from hypothesis import strategies

from hrem_jax.data.captions import read_lines
from hrem_jax.errors import UserError
from hrem_jax.extraction.records import clean_caption
from hrem_jax.extraction.sources import read_source


def facts(source):
  return [(record.name, record.captions, record.split) for record in source.records]


def test_a_folder_with_subfolders_and_captions(tmp_path):
  for name in ('b.jpg', 'a.PNG', 'sub/c.webp', 'sub/deep/d.jpeg', '.hidden/e.jpg', 'sub/.f.jpg', 'notes.md', 'g.mp4'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.touch()
  (tmp_path / 'b.txt').write_bytes(b'\xef\xbb\xbfA  dog\truns .\r\n\r\n   \nAnother\xc2\xa0one\n')
  (tmp_path / 'sub' / 'c.txt').write_text('alone')
  (tmp_path / 'sub' / 'unrelated.txt').write_bytes(b'\xff')
  source = read_source(tmp_path)
  assert source.kind == 'folder'
  assert facts(source) == [
    ('a.PNG', (), None),
    ('b.jpg', ('A dog runs .', 'Another one'), None),
    ('sub/c.webp', ('alone',), None),
    ('sub/deep/d.jpeg', (), None),
  ]
  assert [record.path for record in source.records] == [tmp_path / record.name for record in source.records]


def test_a_folder_with_a_table_in_it_says_so(tmp_path):
  small_pictures.make_folder(tmp_path, 2, captions=0)
  (tmp_path / 'captions.jsonl').touch()
  assert read_source(tmp_path).notes == [
    f'{tmp_path}: no captions (a.jpg wants a.txt); did you mean --images {tmp_path / "captions.jsonl"}?'
  ]


CSV = {
  'comma': ('x.csv', 'filepath,title\na.jpg,"one, two"\nb.jpg,\n\na.jpg,three\n'),
  'tab': ('x.tsv', 'image\tcaption\na.jpg\tone, two\nb.jpg\t\na.jpg\tthree\n'),
  'tabs in a .csv, as open_clip wants': ('x.csv', 'filepath\ttitle\na.jpg\tone, two\nb.jpg\t\na.jpg\tthree\n'),
  'semicolons, byte order mark and CR LF': ('x.csv', '\ufeffFile;Text\r\na.jpg;one, two\r\nb.jpg;\r\na.jpg;three\r\n'),
  'bars, as Flickr30K has them': (
    'x.csv',
    'image_name| comment_number| comment\na.jpg| 0| one, two\nb.jpg| 0| \na.jpg| 1| three\n',
  ),
  'other columns': ('x.csv', 'width,title,filepath\n3,"one, two",a.jpg\n4,,b.jpg\n3,three,a.jpg\n'),
  'a line break in a field': ('x.csv', 'filepath,title\na.jpg,"one,\n two"\nb.jpg,\na.jpg,three\n'),
}


@pytest.mark.parametrize('kind', CSV)
def test_tables_with_any_delimiter(tmp_path, kind):
  name, text = CSV[kind]
  (tmp_path / name).write_text(text, encoding='utf-8', newline='')
  source = read_source(tmp_path / name)
  assert facts(source) == [('a.jpg', ('one, two', 'three'), None), ('b.jpg', (), None)]
  assert source.records[0].path == tmp_path / 'a.jpg'


def test_a_table_of_pictures_alone_and_one_with_splits(tmp_path):
  (tmp_path / 'x.csv').write_text('path\nb.jpg\na.jpg\n')
  assert facts(read_source(tmp_path / 'x.csv')) == [('b.jpg', (), None), ('a.jpg', (), None)]
  (tmp_path / 'x.csv').write_text(
    'path,split,title\na.jpg,VAL,x\nb.jpg,,x\nc.jpg,test,x\nd.jpg,restval,x\ne.jpg,mine,x\n'
  )
  assert [split for _, _, split in facts(read_source(tmp_path / 'x.csv'))] == ['dev', None, 'test', 'train', 'mine']


def test_paths_start_at_the_root_or_are_absolute(tmp_path):
  root, elsewhere = tmp_path / 'pictures', tmp_path / 'elsewhere' / 'b.jpg'
  root.mkdir()
  (tmp_path / 'x.csv').write_text(f'path,title\nsub/a.jpg,x\n{elsewhere},y\n')
  source = read_source(tmp_path / 'x.csv', root)
  assert [record.path for record in source.records] == [root / 'sub/a.jpg', elsewhere]
  assert [record.name for record in source.records] == ['sub/a.jpg', elsewhere.as_posix()]


@pytest.mark.parametrize('ending', ['csv', 'jsonl', 'json'])
def test_a_name_that_begins_with_a_tilde_is_a_name(tmp_path, ending):
  image = {'filename': '~p00.jpg', 'split': 'train', 'sentences': [{'raw': 'a dog'}]}
  (tmp_path / 'x.csv').write_text('filename,title\n~p00.jpg,a dog\n')
  (tmp_path / 'x.jsonl').write_text(json.dumps({'image': '~p00.jpg', 'caption': 'a dog'}) + '\n')
  (tmp_path / 'x.json').write_text(json.dumps({'images': [image]}))
  (record,) = read_source(tmp_path / f'x.{ending}').records
  assert record.path == tmp_path / '~p00.jpg'


def test_json_lines(tmp_path):
  lines = [
    {'image': 'a.jpg', 'captions': ['one', ' ', 'two\nlines']},
    {'file_name': 'b.jpg', 'text': 'b', 'split': 'test', 'width': 3},
    {'image': 'c.jpg', 'caption': None},
    {'image': 'a.jpg', 'caption': 'three'},
  ]
  (tmp_path / 'x.jsonl').write_text('\n\n'.join(map(json.dumps, lines)))
  assert facts(read_source(tmp_path / 'x.jsonl')) == [
    ('a.jpg', ('one', 'two lines', 'three'), None),
    ('b.jpg', ('b',), 'test'),
    ('c.jpg', (), None),
  ]


def test_karpathy_keeps_its_splits_and_finds_the_pictures(tmp_path):
  images = [
    {'filename': 'a.jpg', 'filepath': 'val2014', 'split': 'restval', 'sentences': [{'raw': 'A  cat.'}, {'raw': 'b'}]},
    {'filename': 'b.jpg', 'split': 'val', 'sentences': [{'raw': 'c', 'tokens': ['c']}]},
    {'filename': 'c.jpg', 'split': 'test', 'sentences': []},
  ]
  for name in ('val2014/a.jpg', 'images/b.jpg', 'c.jpg'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / 'dataset_coco.json').write_text(json.dumps({'images': images, 'dataset': 'coco'}))
  assert facts(read_source(tmp_path / 'dataset_coco.json')) == [
    ('val2014/a.jpg', ('A cat.', 'b'), 'train'),
    ('images/b.jpg', ('c',), 'dev'),
    ('c.jpg', (), 'test'),
  ]


WRONG = {
  'no such': ('gone.csv', None, r'^\{file\}: no such file or folder$'),
  'another kind': ('x.xlsx', b'PK', r'^\{file\}: expected a folder of pictures or a file that ends in \.csv, \.tsv'),
  'no header': ('x.csv', b'', r'^\{file\}: line 1: no column of the picture in the header \(none\), expected one of'),
  'unknown columns': (
    'x.csv',
    b'foo,title\n',
    r"no column of the picture in the header 'foo', 'title', expected one of f",
  ),
  'no captions': (
    'x.csv',
    b'path,words\n',
    r"line 1: no column of the caption in the header 'path', 'words', expected",
  ),
  'two columns': ('x.csv', b'path,title,text\n', r"line 1: 'title' and 'text' are both columns of the caption"),
  'no rows': ('x.csv', b'path,title\n', r'^\{file\}: no pictures in it$'),
  'fields': ('x.csv', b'path,title\na.jpg,x\nb.jpg,y,z\n', r'line 3: 3 fields, but the header has 2 \(path, title\)$'),
  'no path': ('x.csv', b'path,title\n ,x\n', r"line 2: '' as the path of a picture, expected a file$"),
  'a quote': ('x.csv', b'path,title\na.jpg,"x\n', r'^\{file\}: line 2: unexpected end of data$'),
  'Latin 1': ('x.csv', b'path,title\na.jpg,caf\xe9\n', r'^\{file\}: not UTF-8: byte 0xe9; save it as UTF-8$'),
  'split': ('x.csv', b'path,title,split\na.jpg,x,a/b\n', r"line 2: split 'a/b', expected train, dev, test or another"),
  'splits': (
    'x.csv',
    b'path,title,split\na.jpg,x,train\na.jpg,y,test\n',
    r'line 3: a.jpg is in the split test, but in train by \{file\}: line 2$',
  ),
  'gallery': (
    'x.csv',
    b'path,title,split\na.jpg,x,gallery\n',
    r'line 2: a.jpg has captions, but the split gallery is for',
  ),
  'no JSON': ('x.jsonl', b'{"image": "a.jpg"}\n{"image":\n', r'^\{file\}: line 2: not JSON: Expecting value'),
  'no object': ('x.jsonl', b'["a.jpg"]\n', r'^\{file\}: line 1: list, expected an object with image and caption$'),
  'no image': ('x.jsonl', b'{"img": "a"}\n', r"^\{file\}: line 1: no picture among img, expected 'image'$"),
  'a number': ('x.jsonl', b'{"image": 3}\n', r"^\{file\}: line 1: 'image' is int, expected a string$"),
  'numbers': (
    'x.jsonl',
    b'{"image": "a", "captions": ["x", 3]}\n',
    r"line 1: 'captions' holds int, expected a string or",
  ),
  'an object': ('x.jsonl', b'{"image": "a", "caption": {}}\n', r"line 1: 'caption' holds dict, expected a string or a"),
  'bytes': ('x.jsonl', b'{"image": "\xff"}\n', r'^\{file\}: line 1: not JSON: '),
  'NUL': ('x.jsonl', b'{"image": "a\\u0000"}\n', r"line 1: 'a\\x00' as the path of a picture"),
  'not Karpathy': ('x.json', b'[]', r"^\{file\}: no list 'images', expected dataset_\*\.json"),
  'half a JSON': ('x.json', b'{"images": [', r'^\{file\}: not JSON: '),
  'an image': ('x.json', b'{"images": [{"filename": "a"}, 7]}', r'image 1 \(counted from 0\): int, expected an object'),
  'no filename': ('x.json', b'{"images": [{"split": "train"}]}', r"image 0 .*'filename' is None, expected a string$"),
  'sentences': (
    'x.json',
    b'{"images": [{"filename": "a", "sentences": 3}]}',
    r"image 0 .*'sentences' is int, expected",
  ),
  'a sentence': ('x.json', b'{"images": [{"filename": "a", "sentences": [{}]}]}', r"image 0 .*'raw' is None, expected"),
}


@pytest.mark.parametrize('kind', WRONG)
def test_what_is_wrong_is_named_with_its_place(tmp_path, kind):
  name, content, message = WRONG[kind]
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError) as error:
    read_source(tmp_path / name)
  found = str(error.value).replace(str(tmp_path / name), '{file}')
  assert re.search(message, found), found
  assert '\n' not in found


def test_folders_that_cannot_be(tmp_path):
  (tmp_path / 'x.txt').touch()
  with pytest.raises(UserError, match=r'no pictures in it or below \(looked for \.jpg '):
    read_source(tmp_path)
  small_pictures.make_folder(tmp_path, 1)
  (tmp_path / 'picture_0.txt').write_bytes(b'fine\ncaf\xe9\n')
  with pytest.raises(UserError, match=r'picture_0\.txt: line 2 is not UTF-8: byte 0xe9$'):
    read_source(tmp_path)
  with pytest.raises(UserError, match=r'^--root .*: is for tables of pictures, but .* is a folder$'):
    read_source(tmp_path, tmp_path)


TEXTS = strategies.text(max_size=12) | strategies.sampled_from(
  ['a\nb', '\r', '\x85', '\u2028x', '\ufeff', '"', '\ud800', ' a ']
)


@hypothesis.given(strategies.lists(TEXTS, max_size=8))
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
def test_clean_captions_are_lines_of_a_file(texts):
  clean = [caption for caption in map(clean_caption, texts) if caption]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'caps.txt'
    path.write_bytes(''.join(f'{caption}\n' for caption in clean).encode('utf-8'))
    assert not clean or read_lines(path) == clean
  assert [clean_caption(caption) for caption in clean] == clean
  assert all(len(caption.split('\n')) == 1 and '  ' not in caption for caption in clean)


PATHS = strategies.text(
  strategies.characters(codec='utf-8', exclude_characters='\0/\r\n', exclude_categories=['Cc', 'Zs']), min_size=1
)


@hypothesis.given(
  strategies.dictionaries(
    PATHS.filter(lambda name: name.strip() == name and name not in ('.', '..') and not name.startswith('~')),
    strategies.lists(TEXTS.filter(lambda text: '\ud800' not in text), min_size=1, max_size=3),
    min_size=1,
    max_size=5,
  )
)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_all_kinds_of_files_tell_the_same(pictures):
  expected = [(name, tuple(c for c in map(clean_caption, texts) if c), None) for name, texts in pictures.items()]
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    for suffix, dialect in (('.csv', 'excel'), ('.tsv', 'excel-tab')):
      with (folder / f'x{suffix}').open('w', newline='', encoding='utf-8') as file:
        rows = ((name, text) for name, texts in pictures.items() for text in texts)
        csv.writer(file, dialect).writerows([('filepath', 'title'), *rows])
    lines = [json.dumps({'image': name, 'captions': texts}) for name, texts in pictures.items()]
    (folder / 'x.jsonl').write_text('\n'.join(lines))
    images = [{'filename': name, 'sentences': [{'raw': t} for t in texts]} for name, texts in pictures.items()]
    (folder / 'x.json').write_text(json.dumps({'images': images}))
    for suffix in ('.csv', '.tsv', '.jsonl', '.json'):
      assert facts(read_source(folder / f'x{suffix}')) == expected, suffix
