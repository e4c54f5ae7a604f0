"""Indexes, what goes into them and what is asked of them."""

import numpy as np

from bad_input.breaking import array, cut, entry, gone, raw
from bad_input.cases_data import AT
from bad_input.table import Case

ENCODE = 'encode W/run --data W/data --index W/index'
SEARCH = 'search W/index --text dog'
SEGMENT = 'index/segments/000001'


def flip(world):
  path = world / SEGMENT / 'ids.txt'
  path.write_bytes(path.read_bytes().replace(b'test_3', b'test_8'))


CASES = [
  Case('encode: with nothing', 'encode --data W/data --index W/index', 'encode: with what'),
  Case('encode: no run', ENCODE.replace('W/run', 'W/empty'), 'empty/config.json: no such file'),
  Case('encode: no towers', ENCODE.replace('W/run', '--encoder W/empty'), 'empty/config.json'),
  Case('encode: no data set', ENCODE.replace('W/data', 'W/empty'), 'empty: neither SPLIT_ims.npy'),
  Case('encode: a split that is not there', f'{ENCODE} --split test,galery', "no split 'galery', there are dev, test"),
  Case('encode: the index is a file', ENCODE.replace('W/index', 'W/file'), 'file: exists already and is no index'),
  Case('encode: the index is a data set', ENCODE.replace('W/index', 'W/data'), 'data: exists already and is no index'),
  Case('encode: another type', f'{ENCODE} --dtype float16', 'index: holds float32, not float16'),
  Case(
    'encode: an index of another run',
    ENCODE,
    'index: made by another encoder than run .sha256',
    entry('index/manifest.json', lambda c: c['encoder']['identity'].update(sha256='4e07')),
  ),
  Case(
    'encode: features of another size',
    f'{ENCODE.replace("W/index", "W/new")} --split test',
    'test_ims.npy: features of size 12, run was trained on 13',
    array(f'{AT}/test_ims.npy', lambda a: a[..., 1:]),
  ),
  Case(
    'encode: NaN',
    f'{ENCODE} --split test',
    'test_ims.npy: row 4 .* holds NaN',
    array(f'{AT}/test_ims.npy', lambda a: np.where(np.arange(len(a))[:, None, None] == 4, np.nan, a)),
    ('\0',),
  ),
  Case('search: no index', 'search W/empty --text dog', 'empty: no index there'),
  Case('search: nothing asked', 'search W/index', 'nothing to search for'),
  Case('search: no words', 'search W/index --text=', 'a query without words'),
  Case(
    'search: words that nobody has learnt', 'search W/index --text zebra', "no word of 'zebra' is in the vocabulary"
  ),
  Case('search: no picture', 'search W/index --image W/file', 'file: not a picture that can be read'),
  Case('search: an id that is not there', 'search W/index --id test_99', "no picture 'test_99' in this index"),
  Case(
    'search: the run is gone',
    SEARCH,
    'runs/own/config.json: no such file',
    entry('index/manifest.json', lambda c: c['encoder']['place'].update(path='runs/own', from_index='../runs/own')),
  ),
  Case(
    'search: the checkpoint is gone',
    SEARCH,
    'run: no checkpoint of step 99, there are 12; an index that was made',
    entry('index/manifest.json', lambda c: c['encoder']['identity'].update(step=99)),
  ),
  Case(
    'search: embeddings cut off',
    SEARCH,
    'embeddings.npy: .* the index is damaged',
    cut(f'{SEGMENT}/embeddings.npy', 99),
  ),
  Case('search: ids changed', SEARCH, 'ids.txt: not what was written', flip),
  Case('search: a file is missing', SEARCH, 'items.jsonl: No such file', gone(f'{SEGMENT}/items.jsonl')),
  Case(
    'search: a manifest that is no JSON', SEARCH, 'manifest.json: not JSON', raw('index/manifest.json', b'{"format"')
  ),
  Case(
    'forget: an id that is not there', 'forget --index W/index test_1 test_99', "no picture 'test_99' in this index"
  ),
]
