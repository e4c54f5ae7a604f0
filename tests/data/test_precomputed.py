"""The conventions of the field's files, and one clear error for each way to be wrong."""

import numpy as np
import pytest

from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError

RNG = np.random.default_rng(0)


def write(folder, *, rows=4, captions=20, ids=None, repeat=1, dtype=np.float32, regions=3, size=5):
  features = np.repeat(RNG.normal(size=(rows, regions, size)), repeat, axis=0).astype(dtype)
  np.save(folder / 'train_ims.npy', features)
  (folder / 'train_caps.txt').write_text(''.join(f'caption {n}\n' for n in range(captions)), encoding='utf-8')
  if ids is not None:
    (folder / 'train_ids.txt').write_text(''.join(f'{name}\n' for name in ids), encoding='utf-8')
  return features


def test_five_captions_per_image(tmp_path):
  features = write(tmp_path, ids=['a', 'b', 'c', 'd'])
  split = load_split(tmp_path, 'train')
  assert split.owner.tolist() == [n // 5 for n in range(20)]
  assert split.ids == ['a', 'b', 'c', 'd']
  rows, mask = split.features.rows(np.array([2, 0]))
  np.testing.assert_array_equal(rows, features[[2, 0]])
  assert mask.all()


@pytest.mark.parametrize('with_ids', [True, False])
def test_rows_repeated_five_times_are_read_through_a_stride(tmp_path, with_ids):
  ids = [name for name in 'abcd' for _ in range(5)] if with_ids else None
  features = write(tmp_path, repeat=5, ids=ids)
  split = load_split(tmp_path, 'train')
  assert split.num_images == 4
  assert split.owner.tolist() == [n // 5 for n in range(20)]
  assert split.ids == (['a', 'b', 'c', 'd'] if with_ids else ['0', '1', '2', '3'])
  np.testing.assert_array_equal(split.features.rows(np.array([3]))[0], features[[15]])


def test_one_caption_per_image(tmp_path):
  write(tmp_path, rows=10, captions=10)
  split = load_split(tmp_path, 'train')
  assert split.num_images == 10
  assert split.owner.tolist() == list(range(10))


def test_any_number_of_captions_by_ids(tmp_path):
  write(tmp_path, rows=3, captions=7, ids=['a', 'b', 'b', 'b', 'b', 'c', 'c'])
  split = load_split(tmp_path, 'train')
  assert split.owner.tolist() == [0, 1, 1, 1, 1, 2, 2]
  assert split.ids == ['a', 'b', 'c']


def test_ragged_region_counts_and_float16(tmp_path):
  features = write(tmp_path, dtype=np.float16)
  features[1, 2] = np.nan  # junk in padding is none of anybody's business
  np.save(tmp_path / 'train_ims.npy', features)
  np.save(tmp_path / 'train_num_regions.npy', np.array([3, 2, 1, 3]))
  rows, mask = load_split(tmp_path, 'train').features.rows(np.array([1, 2, 3]))
  assert rows.dtype == np.float16
  assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
  assert (rows[~mask] == 0).all()
  np.testing.assert_array_equal(rows[mask], features[[1, 2, 3]][mask])


def test_non_ascii_captions_and_windows_line_ends(tmp_path):
  write(tmp_path)
  lines = ['ein Mädchen', '猫 and a dog', 'x'] + ['y'] * 17
  (tmp_path / 'train_caps.txt').write_bytes('\r\n'.join(lines).encode())
  assert load_split(tmp_path, 'train').captions == lines


def broken(folder, how):
  features = write(folder)
  captions = folder / 'train_caps.txt'
  if how == 'no captions file':
    captions.unlink()
  elif how == 'no features file':
    (folder / 'train_ims.npy').unlink()
  elif how == 'captions do not divide':
    captions.write_text('x\n' * 21)
  elif how == 'empty caption':
    captions.write_text('x\n' * 6 + '  \n' + 'x\n' * 13)
  elif how == 'empty file':
    captions.write_text('')
  elif how == 'not UTF-8':
    captions.write_bytes(b'x\n' * 3 + b'caf\xe9\n' + b'x\n' * 16)
  elif how == 'cut off':
    path = folder / 'train_ims.npy'
    path.write_bytes(path.read_bytes()[:200])
  elif how == 'header cut off':
    path = folder / 'train_ims.npy'
    path.write_bytes(path.read_bytes()[:20])
  elif how == 'pickle':
    np.save(folder / 'train_ims.npy', np.array([{}, {}]), allow_pickle=True)
  elif how == 'two dimensions':
    np.save(folder / 'train_ims.npy', features[:, 0])
  elif how == 'integers':
    np.save(folder / 'train_ims.npy', features.astype(np.int64))
  elif how == 'Fortran order':
    np.save(folder / 'train_ims.npy', np.asfortranarray(features))
  elif how == 'too many regions':
    np.save(folder / 'train_num_regions.npy', np.array([3, 4, 1, 3]))
  elif how == 'no regions':
    np.save(folder / 'train_num_regions.npy', np.array([3, 3, 0, 3]))
  elif how == 'wrong number of region counts':
    np.save(folder / 'train_num_regions.npy', np.array([3, 3, 3]))
  elif how == 'wrong number of ids':
    (folder / 'train_ids.txt').write_text('a\nb\nc\n')


@pytest.mark.parametrize(
  ('how', 'message'),
  [
    ('no captions file', r'train_caps.txt not found; the layout is'),
    ('no features file', r'train_ims.npy not found; the layout is'),
    ('captions do not divide', r'21 captions do not divide into the 4 images'),
    ('empty caption', r'train_caps.txt: line 7 is empty'),
    ('empty file', r'train_caps.txt: line 1 is empty'),
    ('not UTF-8', r'train_caps.txt: line 4 is not UTF-8: byte 0xe9'),
    ('cut off', r'train_ims.npy: not a whole .npy file \(200 bytes\)'),
    ('header cut off', r'train_ims.npy: not a whole .npy file'),
    ('pickle', r'train_ims.npy: not a whole .npy file'),
    ('two dimensions', r'train_ims.npy: shape \(4, 5\), expected 3 dimensions'),
    ('integers', r'train_ims.npy: type int64, expected float16 or float32'),
    ('Fortran order', r'train_ims.npy: Fortran order, expected C order'),
    ('too many regions', r'train_num_regions.npy: row 1 has 4 regions, expected 1 to 3'),
    ('no regions', r'train_num_regions.npy: row 2 has 0 regions, expected 1 to 3'),
    ('wrong number of region counts', r'train_num_regions.npy: 3 numbers of type int64, expected 4 integers'),
    ('wrong number of ids', r'train_ids.txt: 3 ids, expected one per image \(4\) or one per caption \(20\)'),
  ],
)
def test_bad_files_are_named(tmp_path, how, message):
  broken(tmp_path, how)
  with pytest.raises(UserError, match=message):
    load_split(tmp_path, 'train')


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(tmp_path, value):
  features = write(tmp_path)
  features[2, 1, 3] = value
  np.save(tmp_path / 'train_ims.npy', features)
  split = load_split(tmp_path, 'train')  # 33 GB are not read at the start
  split.features.rows(np.array([0, 1, 3]))
  with pytest.raises(UserError, match=r'train_ims.npy: row 2 \(counted from 0\) holds NaN or infinite features'):
    split.features.rows(np.array([0, 2]))


def test_a_file_that_has_become_shorter_is_named(tmp_path):
  features = write(tmp_path)
  split = load_split(tmp_path, 'train')
  path = tmp_path / 'train_ims.npy'
  path.write_bytes(path.read_bytes()[:-4])
  np.testing.assert_array_equal(split.features.rows(np.array([2, 0, 1]))[0], features[[2, 0, 1]])
  with pytest.raises(UserError, match=r'train_ims.npy: ends within row 3 \(counted from 0\)'):
    split.features.rows(np.array([1, 3]))


def test_embeddings_of_the_encoder_are_read_through_the_same_stride(tmp_path):
  write(tmp_path, repeat=5)
  embeddings = RNG.normal(size=(20, 3)).astype(np.float32)
  np.save(tmp_path / 'train_embeddings.npy', embeddings)
  features = load_split(tmp_path, 'train').features
  np.testing.assert_array_equal(features.extra('embeddings', np.array([3, 1])), embeddings[[15, 5]])
  features.check_embeddings(3, 'expected ')
  with pytest.raises(UserError, match='train_embeddings.npy: embeddings of size 3, expected 4'):
    features.check_embeddings(4, 'expected ')


@pytest.mark.parametrize(
  ('embeddings', 'message'),
  [
    (None, 'train_embeddings.npy: no such file; .* whose embeddings can be compared'),
    (np.zeros((3, 2), np.float32), 'train_embeddings.npy: 3 rows of float32, expected 4 of float32'),
    (np.zeros((4, 2)), 'train_embeddings.npy: 4 rows of float64, expected 4 of float32'),
    (np.zeros(4, np.float32), r'train_embeddings.npy: shape \(4,\), expected 2 dimensions'),
    (np.full((4, 2), np.nan, np.float32), r'train_embeddings.npy: row 2 \(counted from 0\) holds NaN'),
  ],
)
def test_embeddings_that_cannot_be(tmp_path, embeddings, message):
  write(tmp_path)
  if embeddings is not None:
    np.save(tmp_path / 'train_embeddings.npy', embeddings)
  with pytest.raises(UserError, match=message):
    load_split(tmp_path, 'train').features.extra('embeddings', np.array([2, 1]))
