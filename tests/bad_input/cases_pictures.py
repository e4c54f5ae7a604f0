"""Extraction of own pictures, transfer, numbers of captions; and every command where the system refuses."""

import json

import numpy as np

from bad_input.breaking import array, entry, folder, gone, lines, put, raw
from bad_input.cases_data import AT, EVALUATE, TRAIN
from bad_input.refusing import read_only, small_files
from bad_input.table import Case

EXTRACT = 'extract --images W/pictures --encoder patches --output W/new'
TABLE = EXTRACT.replace('W/pictures', 'W/table.csv')
TRANSFER = 'transfer W/run --data W/data --name tiny'
CAPTION_IDS = 'caption-ids W/data/tiny_precomp --annotations W/annotations.json --split test'
READ_ONLY = 'Read-only file system'


def table(*rows: str):
  return raw('table.csv', ''.join(f'{row}\n' for row in rows).encode())


def broken_pictures(world):
  for path in (world / 'pictures').glob('*.jpg'):
    path.write_bytes(path.read_bytes()[:200])


def other_settings(world):
  (world / 'new/own_precomp.unfinished').mkdir(parents=True)
  (world / 'new/own_precomp.unfinished/settings.json').write_text(json.dumps({'format': 0}))


CASES = [
  Case('extract: nothing there', EXTRACT.replace('pictures', 'nowhere'), 'nowhere: no such file or folder'),
  Case('extract: a folder without pictures', EXTRACT.replace('W/pictures', 'W/empty'), 'empty: no pictures in it or'),
  Case('extract: a file of another kind', EXTRACT.replace('W/pictures', 'W/file'), 'file: expected a folder of pict'),
  Case('extract: --root with a folder', f'{EXTRACT} --root W/data', '--root data: is for tables of pictures'),
  Case('extract: --root is not there', f'{TABLE} --root W/nowhere', '--root nowhere: no such folder'),
  Case(
    'extract: captions that are not UTF-8',
    EXTRACT,
    'pictures/picture_0.txt: line 2 is not UTF-8: byte 0xe9',
    raw('pictures/picture_0.txt', b'a dog\ncaf\xe9\n'),
  ),
  Case(
    'extract: a TFDS data set cut off', EXTRACT, 'cannot be opened as a TFDS', raw('pictures/dataset_info.json', b'{')
  ),
  Case('extract: a table without paths', TABLE, 'table.csv: ', table('title', 'a dog')),
  Case('extract: a table with a short row', TABLE, 'csv: line 3', table('filepath,title', 'a.jpg,a dog', 'b.jpg')),
  Case('extract: an empty table', TABLE, 'table.csv: ', raw('table.csv', b'')),
  Case(
    'extract: no picture can be read',
    EXTRACT,
    'none of its 4 pictures can be read; the first',
    broken_pictures,
    ('new',),
  ),
  Case(
    'extract: pictures of a table that are not there',
    TABLE,
    'none of its 1 pictures can be read; the first, pictures/picture_0.jpg: ',
    gone('pictures'),
    ('new',),
  ),
  Case('extract: an unknown encoder', EXTRACT.replace('patches', 'resnet'), 'resnet'),
  Case('extract: regions that are no grid', f'{EXTRACT} --regions 5', '--regions 5'),
  Case('extract: a share above 1', f'{EXTRACT} --test 1.5', '--test 1.5: expected a fraction from 0 to less than 1'),
  Case('extract: nothing left to train', f'{EXTRACT} --test 0.5 --dev 0.5', 'leave nothing for training'),
  Case('extract: a name with a slash', f'{EXTRACT} --name a/b', "--name 'a/b': expected letters, digits"),
  Case('extract: small pictures of no size', f'{EXTRACT} --pictures-size -1', '--pictures-size -1: expected pixels'),
  Case(
    'extract: something else is there',
    f'{EXTRACT.replace("W/new", "W/data")} --name tiny',
    'data/tiny_precomp: holds something that no extraction made',
  ),
  Case('extract: begun with other settings', EXTRACT, 'begun with other settings', other_settings, ('new/',)),
  Case(
    'extract: below a file',
    EXTRACT.replace('W/new', 'W/file'),
    'own_precomp.unfinished: cannot be written: there is',
  ),
  Case('transfer of nothing', TRANSFER.replace('W/run', 'W/nothing'), 'nothing/config.json: no such file'),
  Case('transfer to nothing', TRANSFER.replace('tiny', 'coco'), 'coco_precomp: test_ims.npy and test_caps.txt'),
  Case('transfer to a split that is not there', f'{TRANSFER} --split testall', 'tiny_precomp: testall_ims.npy and'),
  Case(
    'transfer to features of another size',
    TRANSFER,
    'test_ims.npy: features of size 12, run was trained on 13',
    array(f'{AT}/test_ims.npy', lambda a: a[..., 1:]),
  ),
  Case(
    'transfer to another language',
    TRANSFER,
    'its vocabulary does not know .*% of the words of split test',
    lines(f'{AT}/test_caps.txt', lambda content: ['ein Hund im Gras'] * len(content)),
  ),
  Case('transfer by a protocol for other data', f'{TRANSFER} --protocol coco', "protocol 'coco' is defined on"),
  Case('transfer by judgements without caption ids', f'{TRANSFER} --protocol eccv', 'test_caption_ids.txt: no s'),
  Case('transfer with labels that are not there', f'{TRANSFER} --class-labels W/no.json', 'no.json'),
  Case('transfer by an unknown rule for ties', f'{TRANSFER} --ties lucky', "argument --ties: invalid choice: 'lucky'"),
  Case(
    'transfer to features that are not finite',
    TRANSFER,
    'test_ims.npy: row 5 .counted from 0. holds NaN',
    array(f'{AT}/test_ims.npy', put((5, 0, 0), np.nan)),
  ),
  Case(
    'caption-ids: no data there',
    CAPTION_IDS.replace('tiny', 'coco'),
    'coco_precomp: test_ims.npy and',
  ),
  Case(
    'caption-ids: no annotations there',
    CAPTION_IDS.replace('W/annotations', 'W/nowhere'),
    'nowhere.json: FileNotFoundError: .*expected is captions_val2014.json of COCO',
  ),
  Case(
    'caption-ids: annotations cut off',
    CAPTION_IDS,
    'annotations.json: JSONDecodeError: .*expected is captions_val2014.json',
    raw('annotations.json', b'{"annotations": ['),
  ),
  Case(
    'caption-ids: annotations of boxes',
    CAPTION_IDS,
    "annotations.json: KeyError: 'caption'; expected is captions_val2014.json",
    entry('annotations.json', lambda content: content['annotations'][3].pop('caption')),
  ),
  Case(
    'caption-ids: annotations of other pictures',
    CAPTION_IDS,
    "annotations.json: no image with all 5 captions of image '0' of test",
    entry('annotations.json', lambda content: content['annotations'].pop(0)),
  ),
  Case(
    'caption-ids: a folder in the place of the file',
    CAPTION_IDS,
    'test_caption_ids.txt: cannot be written: there is something that is no file',
    folder(f'{AT}/test_caption_ids.txt'),
  ),
  *(
    Case(f'a read-only folder: {what}', command, f'{where}[^ ]*: .*{READ_ONLY}', begun=begun, under=read_only)
    for what, command, where, begun in (
      ('training', TRAIN, 'new', ()),
      ('going on', TRAIN.replace('W/new', 'W/run'), 'run', ()),
      ('evaluation', EVALUATE, 'run/results.json', ()),
      ('extract', EXTRACT, 'new', ()),
      ('transfer', TRANSFER, 'run/transfer_tiny_test.json', ()),
      ('caption-ids', CAPTION_IDS, 'test_caption_ids.txt', ()),
      ('convert-data', 'convert-data W/data --output W/new', '1.0.0', ('new',)),  # a bar
      ('export', 'export W/run --output W/new', 'new', ()),
      ('convert', 'convert W/release.pth --output W/new --vocabulary W/vocab.txt --bert-heads 4', 'new', ()),
      ('prepare-demo', 'prepare-demo --output W/new --num-train 1 --num-dev 1 --num-test 1', 'new', ()),
    )
  ),
  Case(
    'extract: no room',
    EXTRACT,
    'own_precomp.unfinished: File too large; what is done is kept, the same command goes on',
    begun=('new',),
    under=small_files,
  ),
  Case(
    'caption-ids: no room',
    CAPTION_IDS,
    'test_caption_ids.txt: cannot be written: File too large',
    under=lambda world: small_files(world, 100),
  ),
]
