"""The same to the eye is found, other pictures are not; the search by bands against all pairs."""

import io

import hypothesis
import numpy as np
import pytest
import small_pictures
from hypothesis import strategies
from PIL import Image, ImageEnhance

from hrem_jax.extraction.lookalikes import HASH_BYTES, MAX_BITS, SIGNATURE_BYTES, are_near, look_alike, signature

CHANGES = {
  'compressed': lambda p: Image.open(io.BytesIO(small_pictures.as_bytes(p, quality=40))).convert('RGB'),
  'half the size': lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS),
  'three times the size': lambda p: p.resize((p.width * 3, p.height * 3), Image.Resampling.BICUBIC),
  'a little brighter': lambda p: ImageEnhance.Brightness(p).enhance(1.05),
  'another format': lambda p: Image.open(io.BytesIO(small_pictures.as_bytes(p, 'GIF'))).convert('RGB'),
}


def signatures(pictures) -> np.ndarray:
  return np.stack([np.frombuffer(signature(picture), np.uint8) for picture in pictures])


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_copy_looks_like_its_original_and_nothing_else(change):
  originals = [small_pictures.random_picture(seed, (160, 120)) for seed in range(23)]
  group = look_alike(signatures([*originals, *map(CHANGES[change], originals)]))
  assert group.shape == (46,)
  assert group[:23].tolist() == group[23:].tolist()
  assert len(set(group[:23].tolist())) == 23


def test_blank_pictures_of_other_colours_do_not_look_alike():
  colours = ['white', 'black', 'red', 'lime', 'blue', 'white']
  group = look_alike(signatures([Image.new('RGB', (31, 17), colour) for colour in colours]))
  assert group[0] == group[5]
  assert len(set(group.tolist())) == 5


def test_mirrored_and_turned_pictures_are_other_pictures():
  picture = small_pictures.random_picture(3)
  others = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(180)]
  assert len(set(look_alike(signatures([picture, *others])).tolist())) == 3


def by_all_pairs(signatures: np.ndarray) -> list[set[int]]:
  """Slow: joins sets until nothing is near across them."""
  groups = [{index} for index in range(len(signatures))]
  for i in range(len(signatures)):
    for j in range(i):
      bits = sum(bin(int(a) ^ int(b)).count('1') for a, b in zip(signatures[i][:32], signatures[j][:32], strict=True))
      colour = max(abs(int(a) - int(b)) for a, b in zip(signatures[i][32:], signatures[j][32:], strict=True))
      if bits <= 15 and colour <= 24:
        one, other = (next(group for group in groups if index in group) for index in (i, j))
        if one is not other:
          one |= other
          groups.remove(other)
  return sorted(groups, key=min)


@hypothesis.given(strategies.integers(0, 2**32), strategies.integers(2, 24), strategies.integers(1, 40))
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_bands_find_what_all_pairs_find(seed, count, max_flips):
  """Copies of a few signatures with bits turned over anywhere, more or fewer than allowed, and shifted colours."""
  rng = np.random.default_rng(seed)
  base = rng.integers(0, 256, (3, SIGNATURE_BYTES), dtype=np.uint8)
  rows = base[rng.integers(3, size=count)].copy()
  for row in rows:
    bits = np.unpackbits(row[:HASH_BYTES])
    bits[rng.choice(256, size=rng.integers(max_flips + 1), replace=False)] ^= 1
    row[:HASH_BYTES] = np.packbits(bits)
    row[HASH_BYTES] = np.clip(int(row[HASH_BYTES]) + rng.integers(-20, 21), 0, 255)
  group = look_alike(rows)
  found = sorted(({i for i in range(count) if group[i] == g} for g in set(group.tolist())), key=min)
  assert found == by_all_pairs(rows)


def test_bits_may_differ_in_every_band_but_one():
  one = np.zeros((1, SIGNATURE_BYTES), np.uint8)
  other = one.copy()
  other[0, : 2 * MAX_BITS : 2] = 1
  assert are_near(one, other).tolist() == [True]
  assert len(set(look_alike(np.concatenate([one, other])).tolist())) == 1
  other[0, 2 * MAX_BITS] = 1
  assert are_near(one, other).tolist() == [False]


def test_one_picture_is_a_group():
  assert look_alike(signatures([small_pictures.random_picture(0)])).tolist() == [0]
