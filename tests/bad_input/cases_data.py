"""Data sets: features, captions, ids, numbers of regions."""

import numpy as np

from bad_input.breaking import array, both, cut, folder, gone, lines, put, raw
from bad_input.table import Case

TRAIN = 'main --config=W/config.py --data=W/data --workdir=W/new'
EVALUATE = 'main --mode=evaluate --data=W/data --workdir=W/run'
AT = 'data/tiny_precomp'
IMAGES, CAPTIONS, IDS, COUNTS = (f'{AT}/train_{end}' for end in ('ims.npy', 'caps.txt', 'ids.txt', 'num_regions.npy'))
BEGUN = ('new',)


def ids(values):
  return raw(IDS, ''.join(f'{value}\n' for value in values).encode())


def counts(values, dtype=np.int64):
  return lambda world: np.save(world / COUNTS, np.array(values, dtype))


def pickled(world):
  np.save(world / IMAGES, np.array([{}, {}], object), allow_pickle=True)


def gallery_only(world):
  (world / f'{AT}/train_ims.npy').rename(world / f'{AT}/gallery_ims.npy')
  for split in ('dev', 'test'):
    (world / f'{AT}/{split}_ims.npy').unlink()


CASES = [
  Case(
    'a caption of endless length',
    TRAIN,
    'train_caps.txt: line 1 has 120,000 bytes, expected at most 65,536',
    lines(CAPTIONS, put(0, 'a dog ' * 20_000)),
  ),
  Case('the data set is not there', TRAIN.replace('/data', '/nowhere'), 'nowhere/tiny_precomp: train_ims.npy and'),
  Case('no features of a split', TRAIN, r'tiny_precomp: dev_ims.npy not found; the layout', gone(f'{AT}/dev_ims.npy')),
  Case(
    'only pictures without captions',
    TRAIN,
    r'tiny_precomp: has pictures without captions only \(gallery_ims.npy\), which can be searched',
    gallery_only,
  ),
  Case('no captions of the test split', TRAIN, r'test_caps.txt not found', gone(f'{AT}/test_caps.txt')),
  Case('captions are a folder', TRAIN, 'train_caps.txt not found', both(gone(CAPTIONS), folder(CAPTIONS))),
  Case('features cut off', TRAIN, r'train_ims.npy: not a whole .npy file \(5000 bytes\)', cut(IMAGES, 5000)),
  Case('features cut off within the header', TRAIN, r'train_ims.npy: not a whole .npy file \(50 b', cut(IMAGES, 50)),
  Case('features are an empty file', TRAIN, r'train_ims.npy: not a whole .npy file \(0 bytes', cut(IMAGES, 0)),
  Case('features are text', TRAIN, 'train_ims.npy: not a whole .npy file', raw(IMAGES, b'1.0 2.0\n')),
  Case('features are Python objects (a pickle)', TRAIN, 'train_ims.npy: not a whole .* objects', pickled),
  Case('features are integers', TRAIN, 'type int32, expected float16 or', array(IMAGES, lambda a: a.astype(np.int32))),
  Case('features are doubles', TRAIN, 'type float64, expected float16', array(IMAGES, lambda a: a.astype(np.float64))),
  Case('features are big-endian', TRAIN, 'type >f4, expected float16', array(IMAGES, lambda a: a.astype('>f4'))),
  Case(
    'features of one region without its axis', TRAIN, r'shape \(40, 13\), expected 3', array(IMAGES, lambda a: a[:, 0])
  ),
  Case('features with a fourth axis', TRAIN, r'shape \(40, 1, 7, 13\), exp', array(IMAGES, lambda a: a[:, None])),
  Case('features in Fortran order', TRAIN, 'Fortran order, expected C order', array(IMAGES, np.asfortranarray)),
  Case('no image at all', TRAIN, r'train', array(IMAGES, lambda a: a[:0])),
  Case('images without regions', TRAIN, r'shape \(40, 0, 13\), expected at least', array(IMAGES, lambda a: a[:, :0])),
  Case(
    'features of another size',
    TRAIN,
    'features of size 12, expected config.model.region_size=13',
    array(IMAGES, lambda a: a[..., 1:]),
  ),
  Case(
    'splits of different sizes',
    TRAIN,
    'dev_ims.npy: features of size 5, expected',
    array(f'{AT}/dev_ims.npy', lambda a: a[..., :5]),
  ),
  Case(
    'NaN in every training image',
    TRAIN,
    r'train_ims.npy: row \d+ \(counted from 0\) holds NaN',
    array(IMAGES, put((slice(None), 3, 2), np.nan)),
    BEGUN,
  ),
  Case(
    'an infinite number in the test split',
    EVALUATE,
    r'test_ims.npy: row 5 \(counted from 0\) holds NaN',
    array(f'{AT}/test_ims.npy', put((5, 0, 0), np.inf)),
  ),
  Case('a caption too few', TRAIN, '199 captions do not divide into the 40 images', lines(CAPTIONS, lambda a: a[:-1])),
  Case('captions of another split', TRAIN, 'captions do not divide', lines(CAPTIONS, lambda a: a[:63])),
  Case('an empty line among captions', TRAIN, 'train_caps.txt: line 8 is empty', lines(CAPTIONS, put(7, ''))),
  Case('a line of spaces', TRAIN, 'train_caps.txt: line 8 is empty', lines(CAPTIONS, put(7, ' \t '))),
  Case(
    'a line that is only a carriage return (CRLF)',
    TRAIN,
    'train_caps.txt: line 8 is empty',
    lines(CAPTIONS, put(7, '\r')),
  ),
  Case('a line that is only U+0085 (NEL)', TRAIN, 'train_caps.txt: line 8 is empty', lines(CAPTIONS, put(7, '\x85'))),
  Case('a line that is only U+2028 (LS)', TRAIN, 'train_caps.txt: line 8 is empty', lines(CAPTIONS, put(7, '\u2028'))),
  Case('an empty line at the end', TRAIN, 'train_caps.txt: line 201 is empty', lines(CAPTIONS, lambda a: [*a, ''])),
  Case('an empty captions file', TRAIN, 'train_caps.txt: line 1 is empty', raw(CAPTIONS, b'')),
  Case(
    'captions in Latin-1',
    TRAIN,
    'train_caps.txt: line 2 is not UTF-8: byte 0xe9',
    raw(CAPTIONS, b'a dog\ncaf\xe9\n' * 100),
  ),
  Case(
    'captions in UTF-16',
    TRAIN,
    'train_caps.txt: line 1 is not UTF-8: byte 0xff',
    raw(CAPTIONS, 'a dog\n'.encode('utf-16')),
  ),
  Case(
    'too few ids', TRAIN, r'train_ids.txt: 3 ids, expected one per image \(40\) or one per caption \(200\)', ids('abc')
  ),
  Case('ids not UTF-8', TRAIN, 'train_ids.txt: line 2 is not UTF-8: byte 0xff', raw(IDS, b'a\n\xff\n')),
  Case('an empty id', TRAIN, 'train_ids.txt: line 2 is empty', ids(['a', '', 'b'])),
  Case(
    'more regions than there are',
    TRAIN,
    'num_regions.npy: row 3 has 9 regions, expected 1 to 7',
    counts([7] * 3 + [9] + [7] * 36),
  ),
  Case(
    'an image without a region',
    TRAIN,
    'num_regions.npy: row 3 has 0 regions, expected 1 to 7',
    counts([7] * 3 + [0] + [7] * 36),
  ),
  Case(
    'numbers of regions of other images',
    TRAIN,
    'num_regions.npy: 5 numbers of type int64, expected 40',
    counts([7] * 5),
  ),
  Case(
    'numbers of regions that are floats',
    TRAIN,
    'num_regions.npy: 40 numbers of type float32',
    counts([7] * 40, np.float32),
  ),
  Case('check of a folder that is not there', 'check W/nowhere', 'nowhere: no such folder'),
  Case('check of a folder without data', 'check W/empty', 'empty: neither SPLIT_ims.npy and SPLIT_caps.txt nor'),
]
