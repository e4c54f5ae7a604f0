"""Tokens of a text tower: cutting, padding and cleaning as in training (test_towers.py has the published numbers)."""

import json

import numpy as np
import pytest
from tower_folders import WIDTH, change_json, copy_of

from hrem_jax.ports.tower_tokenizer import read_tower_tokenizer

LONG = 'the man and a red dog ' * 9


@pytest.mark.parametrize('family', ['clip', 'siglip'])
def test_the_end_token_stays_where_a_text_is_cut(family, tmp_path):
  folder = copy_of(family, tmp_path)
  tokenizer = read_tower_tokenizer(folder, family, WIDTH)
  vocabulary = json.loads((folder / 'tokenizer.json').read_text())
  # What such a file says of special tokens, cutting and padding differs from folder to folder.
  change_json(folder / 'tokenizer.json', lambda content: content.update(post_processor=None, truncation=None))
  bare = read_tower_tokenizer(folder, family, WIDTH)
  assert vocabulary['version'] == '1.0'
  tokens, mask = tokenizer(['a dog', LONG, ''])
  for found, again in zip((tokens, mask), bare(['a dog', LONG, '']), strict=True):
    np.testing.assert_array_equal(found, again)
  assert tokens.shape == mask.shape == (3, WIDTH)
  assert tokens.dtype == np.int32
  assert tokens[1, -1] == tokenizer.end
  assert mask[1].all()
  special = 2 if family == 'clip' else 1
  assert mask[2].sum() == special
  assert (tokens[2][~mask[2]] == tokenizer.end).all()  # in both families the end token pads


def test_siglips_first_kind_saw_no_punctuation(tmp_path):
  tokenizer = read_tower_tokenizer(copy_of('siglip', tmp_path), 'siglip', WIDTH)
  tokens, _ = tokenizer(['a red dog', ' A (red)\tdog!! '])
  np.testing.assert_array_equal(tokens[0], tokens[1])


def test_siglip_2_saw_punctuation_but_no_upper_case(tmp_path):
  folder = copy_of('siglip', tmp_path)
  change_json(
    folder / 'tokenizer_config.json',
    lambda content: content.update(tokenizer_class='GemmaTokenizer', pad_token='<pad>'),
  )
  tokenizer = read_tower_tokenizer(folder, 'siglip', WIDTH)
  tokens, mask = tokenizer(['a red dog', 'A RED dog', 'a red, dog'])
  np.testing.assert_array_equal(tokens[0], tokens[1])
  assert (tokens[2] != tokens[0]).any()
  assert (tokens[0][~mask[0]] == 0).all()
  assert mask[0].tolist() == sorted(mask[0], reverse=True)


def test_padding_stands_where_the_folder_says(tmp_path):
  folder = copy_of('siglip', tmp_path)
  right, right_mask = read_tower_tokenizer(folder, 'siglip', WIDTH)(['a red dog'])
  change_json(folder / 'tokenizer_config.json', lambda content: content.update(padding_side='left'))
  left, left_mask = read_tower_tokenizer(folder, 'siglip', WIDTH)(['a red dog'])
  np.testing.assert_array_equal(left[left_mask], right[right_mask])
  assert left_mask[0, -1]
  assert not left_mask[0, 0]
