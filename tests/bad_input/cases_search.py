"""Indexes, what goes into them and what is asked of them."""

import dataclasses
import json

import numpy as np

from bad_input.breaking import array, cut, gone
from bad_input.cases_data import AT
from bad_input.table import Case
from hrem_jax.search.index import open_index

ENCODE = 'encode W/run --data W/data --index W/index'
SEARCH = 'search W/index --text dog'


def about(**changes):
  """Changes what an index says of its pictures."""

  def breaks(world):
    with open_index(world / 'index') as index:
      its = index.state().about.encoder
      index.describe(dataclasses.replace(index.state().about, encoder={k: its[k] | changes.get(k, {}) for k in its}))

  return breaks


def flip(word):
  def breaks(world):
    content = bytearray((world / 'index').read_bytes())
    content[content.rindex(word)] ^= 1
    (world / 'index').write_bytes(content)

  return breaks


def earlier(world):
  (world / 'index').unlink()
  place = {'path': 'runs/own', 'from_index': '../runs/own'}
  manifest = {'encoder': {'identity': {'kind': 'run'}, 'place': place}, 'sources': [{'path': 'data'}]}
  (world / 'index').mkdir()
  (world / 'index' / 'manifest.json').write_text(json.dumps(manifest))


CASES = [
  Case('encode: with nothing', 'encode --data W/data --index W/index', 'encode: with what'),
  Case('encode: no run', ENCODE.replace('W/run', 'W/empty'), 'empty/config.json: no such file'),
  Case('encode: no towers', ENCODE.replace('W/run', '--encoder W/empty'), 'empty/config.json'),
  Case('encode: no data set', ENCODE.replace('W/data', 'W/empty'), 'empty: neither SPLIT_ims.npy'),
  Case('encode: a split that is not there', f'{ENCODE} --split test,galery', "no split 'galery', there are dev, test"),
  Case('encode: the index is a file', ENCODE.replace('W/index', 'W/file'), 'file: exists already and is no index'),
  Case('encode: the index is a data set', ENCODE.replace('W/index', 'W/data'), 'data: a folder, and no index'),
  Case('encode: another type', f'{ENCODE} --dtype float16', 'index: holds float32, not float16'),
  Case(
    'encode: an index of another run',
    ENCODE,
    'index: made by another encoder than run .sha256',
    about(identity={'sha256': '4e07'}),
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
  Case('search: no index', 'search W/empty --text dog', 'empty: a folder, and no index'),
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
    about(place={'path': 'runs/own', 'from_index': '../runs/own'}),
  ),
  Case(
    'search: the checkpoint is gone',
    SEARCH,
    'run: no checkpoint of step 99, there are 12; an index that was made',
    about(identity={'step': 99}),
  ),
  Case('search: the index cut off', SEARCH, 'index: the index is damaged: database disk image', cut('index', 20000)),
  Case('search: a changed bit', SEARCH, "index: the index is damaged: what is known of picture '", flip(b'"a ')),
  Case('search: another file', 'search W/file --text dog', 'file: the index is damaged: file is not a database'),
  Case('search: the index is gone', SEARCH, 'index: no index there', gone('index')),
  Case(
    'search: an index of an earlier version',
    SEARCH,
    'index: an index of an earlier version, a folder .* `python -m hrem_jax encode runs/own --data data --index index',
    earlier,
  ),
]
