"""Folders of towers: the numbers of the published programs, prefixes, shards, and a message for what can be wrong."""

import functools
import json
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tower_folders import (
  FOLDERS,
  GRID,
  NAMES,
  TEXTS,
  WITH_TEXT,
  change_json,
  change_tensors,
  copy_of,
  golden_of,
  pictures,
)

from hrem_jax.errors import UserError
from hrem_jax.ports.towers import open_towers, open_vision

vision_of = functools.cache(lambda name: open_vision(FOLDERS / name))
towers_of = functools.cache(lambda name: open_towers(FOLDERS / name))


def assert_close(found, expected, tolerance: float = 1e-5):
  """Relative to the magnitude of all."""
  assert found.shape == expected.shape
  assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize('name', NAMES)
def test_a_vision_tower_gives_the_published_numbers(name):
  golden, side = golden_of(name), vision_of(name)
  features = jax.jit(side.module.apply)(side.variables, golden['pixels'])
  assert side.module.grid == GRID
  patches = golden['states'][:, -16:]  # after the class token and the registers
  assert_close(features.patches, patches.reshape(3, *GRID, 14))
  if 'embedding' in golden:
    assert_close(features.embedding, golden['embedding'])
    assert_allclose(np.linalg.norm(features.embedding, axis=1), 1, atol=1e-6)
    assert side.embedding_size == golden['embedding'].shape[1]
  else:
    assert features.embedding is None
    assert side.embedding_size is None


@pytest.mark.parametrize('name', NAMES)
def test_preprocessing_gives_every_bit_of_the_published_one(name):
  preprocessing = vision_of(name).preprocessing
  found = np.stack([preprocessing(picture) for picture in pictures()])
  if int(version('pillow').split('.')[0]) >= 13:  # which made the numbers
    assert_array_equal(found, golden_of(name)['pixels'])
  else:  # resizes to another of two neighbouring levels here and there, for the published processors, too
    level = preprocessing.scale / min(preprocessing.deviation)
    assert_allclose(found, golden_of(name)['pixels'], rtol=0, atol=1.01 * level)


@pytest.mark.parametrize('name', WITH_TEXT)
def test_a_text_tower_gives_the_published_numbers(name):
  golden, towers = golden_of(name), towers_of(name)
  tokens, _ = towers.text.tokenize(TEXTS)
  assert_array_equal(tokens, golden['tokens'])
  features = jax.jit(towers.text.module.apply)(towers.text.variables, tokens)
  assert_close(features.words, golden['words'])
  assert_close(features.embedding, golden['text_embedding'])
  logits = towers.logit_scale * golden['embedding'] @ np.asarray(features.embedding).T + towers.logit_bias
  assert_close(logits, golden['logits'])
  assert towers.embedding_size == golden['embedding'].shape[1]


def test_shards_are_one_folder():
  assert sum(path.suffix == '.safetensors' for path in (FOLDERS / 'clip_first_files').iterdir()) == 3
  assert len(vision_of('clip_first_files').tensors.files) == 3
  assert len(vision_of('clip').tensors.files) == 1


@pytest.mark.parametrize(
  ('name', 'prefix'), [('vit', 'vit.'), ('dinov2', 'dinov2.'), ('clip', ''), ('clip', 'vision_model.'), ('siglip', '')]
)
def test_the_tower_alone_and_inside_another_model_is_the_same(name, prefix, tmp_path):
  """Classifiers put something before all names; a vision tower of its own may leave out what a whole file has there."""
  folder = copy_of(name, tmp_path)
  old = 'vision_model.' if name in WITH_TEXT else ''
  kept = {'visual_projection.weight'} if prefix else set()
  change_tensors(
    folder,
    lambda tensors: {
      key if key in kept else prefix + key.removeprefix(old): array
      for key, array in tensors.items()
      if key.startswith(old) or key in kept
    },
  )
  if name in WITH_TEXT:
    config = json.loads((folder / 'config.json').read_text())
    alone = config['vision_config'] | {'projection_dim': config.get('projection_dim')}
    (folder / 'config.json').write_text(json.dumps(alone))
  side = open_vision(folder)
  has_embedding = name == 'siglip' or bool(kept & set(side.tensors))
  assert side.embedding_size == (vision_of(name).embedding_size if has_embedding else None)
  ours, whole = side.variables['params'], vision_of(name).variables['params']
  jax.tree.map(assert_array_equal, ours, {key: whole[key] for key in ours})
  assert whole.keys() - ours.keys() <= ({'final_norm', 'projection'} if name == 'clip' and not has_embedding else set())
  if name in WITH_TEXT:
    with pytest.raises(UserError, match=f"model_type is '{name}_vision_model', which has no text tower"):
      open_towers(folder)


def test_sizes_that_a_file_leaves_out_are_those_of_a_base_model(tmp_path):
  """google/siglip-base-patch16-224 says no more than this."""
  folder = copy_of('siglip', tmp_path)
  (folder / 'config.json').write_text('{"model_type": "siglip", "vision_config": {}, "text_config": {}}')
  with pytest.raises(UserError, match=r'the preprocessing gives 23 x 23 pixels, config.json expects 224 x 224'):
    open_vision(folder)
  change_json(folder / 'preprocessor_config.json', lambda content: content.pop('size'))
  with pytest.raises(UserError, match=r"no tensor 'vision_model.encoder.layers.3.layer_norm1.weight'"):
    open_vision(folder)


def test_half_precision_files_are_read_as_float32(tmp_path):
  folder = copy_of('vit', tmp_path)
  change_tensors(folder, lambda tensors: {name: array.astype(jnp.bfloat16) for name, array in tensors.items()})
  kernel = open_vision(folder).variables['params']['patch_embedding']['kernel']
  assert kernel.dtype == np.float32
  assert_allclose(kernel, vision_of('vit').variables['params']['patch_embedding']['kernel'], rtol=1e-2)


def test_what_the_program_of_the_first_years_took_wins(tmp_path):
  """Where a CLIP's file has `vision_config_dict`, the published program takes it, and defaults for the rest."""
  folder = copy_of('clip', tmp_path)
  config = json.loads((folder / 'config.json').read_text())
  wanted = config['vision_config']
  config |= {'vision_config_dict': wanted, 'vision_config': wanted | {'hidden_size': 99}}
  (folder / 'config.json').write_text(json.dumps(config))
  assert open_vision(folder).module == vision_of('clip').module


CONFIG, PROCESSOR = 'config.json', 'preprocessor_config.json'
WRONG = [
  (CONFIG, {'model_type': 'siglip2'}, r"'siglip2', pictures of any shape \(NaFlex\), expected a SigLIP 2 of a fixed"),
  (CONFIG, {'model_type': 'resnet'}, r"config.json: model_type is 'resnet', expected one of vit, clip"),
  (CONFIG, {'model_type': ['vit']}, r'model_type is \[.vit.\], expected one of'),
  (CONFIG, {'hidden_act': 'relu'}, r"config.json: hidden_act is 'relu', expected one of 'gelu', 'quick_gelu'"),
  (CONFIG, {'hidden_size': '14'}, r"hidden_size is '14', expected a positive integer"),
  (CONFIG, {'num_attention_heads': 3}, r'hidden_size is 14, expected a multiple of the 3 heads'),
  (CONFIG, {'layer_norm_eps': None}, r'layer_norm_eps is None, expected a number'),
  (CONFIG, {'num_channels': 1}, r'num_channels is 1, expected 3'),
  (CONFIG, {'qkv_bias': False}, r'qkv_bias is False, expected True'),
  (CONFIG, {'image_size': 24}, r'the preprocessing gives 23 x 23 pixels, config.json expects 24 x 24'),
  (CONFIG, {'patch_size': 6}, r'patch_embedding/kernel has shape \(75, 14\), the model expects \(108, 14\)'),
  (
    CONFIG,
    {'num_hidden_layers': 4},
    r"model.safetensors: no tensor 'encoder.layer.3.attention.attention.query.weight'",
  ),
  (
    PROCESSOR,
    {'image_processor_type': 'SamImageProcessor'},
    r"'SamImageProcessor', expected one of CLIPImageProcessor",
  ),
  (PROCESSOR, {'do_resize': False}, r'preprocessor_config.json: do_resize is False, expected True'),
  (PROCESSOR, {'size': {'longest_edge': 23}}, r'size is .*expected height and width, or shortest_edge'),
  (PROCESSOR, {'size': {'height': 23, 'width': 0}}, r'size.width is 0, expected a positive integer'),
  (PROCESSOR, {'size': {'height': 23, 'width': 25}}, r'gives 23 x 25 pixels'),
  (PROCESSOR, {'do_center_crop': True, 'crop_size': 24}, r'crop_size \(24, 24\) is larger than size \(23, 23\)'),
  (PROCESSOR, {'resample': 'cubic'}, r"resample is 'cubic', expected one of 0, "),
  (PROCESSOR, {'image_mean': [0.5]}, r'image_mean is \[0.5\], expected three numbers'),
  (PROCESSOR, {'image_std': [1, 1, 0]}, r'image_std is .*, expected three numbers that are not 0'),
  # What decides how much is allocated, and what float64 does not hold.
  (CONFIG, {'hidden_size': 10**30}, r'hidden_size is 1000.*, expected at most 2,097,152'),
  (CONFIG, {'num_hidden_layers': 100_000}, r'num_hidden_layers is 100000, expected at most 512'),
  (CONFIG, {'intermediate_size': 10**9}, r'intermediate_size is 1000000000, expected at most'),
  (CONFIG, {'hidden_size': [[1] * 1000] * 1000}, r'hidden_size is \[\[1, 1, .*\.\.\..*, expected a positive integer'),
  (CONFIG, {'layer_norm_eps': 10**400}, r'layer_norm_eps is 1000.*, expected a number'),
  (CONFIG, {'layer_norm_eps': float('nan')}, r'layer_norm_eps is nan, expected a number'),
  (PROCESSOR, {'size': 100_000}, r'size.height is 100000, expected at most 2,048'),
  (PROCESSOR, {'size': {'shortest_edge': 100_000}}, r'size.shortest_edge is 100000, expected at most 2,048'),
  (PROCESSOR, {'size': 2000, 'do_center_crop': True, 'crop_size': 10**5}, r'crop_size.height is 100000, expected at'),
  (PROCESSOR, {'size': 2000}, r'2000 x 2000 pixels in patches of 5, expected at most 4,096 patches'),
  (PROCESSOR, {'rescale_factor': float('inf')}, r'rescale_factor is inf, expected a number'),
  (PROCESSOR, {'image_mean': [0.5, 0.5, float('nan')]}, r'image_mean is .*, expected three numbers'),
]


@pytest.mark.parametrize(('file', 'values', 'message'), WRONG)
def test_a_folder_that_cannot_be_used_says_why(file, values, message, tmp_path):
  folder = copy_of('vit', tmp_path)
  change_json(folder / file, lambda content: content.update(values))
  with pytest.raises(UserError, match=message) as error:
    open_vision(folder)
  assert str(tmp_path) in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (CONFIG, r'config.json: no such file; expected is a Hugging Face folder of one of vit, clip'),
    (PROCESSOR, r'preprocessor_config.json: no such file; it says how pictures are resized'),
    ('model.safetensors', r'model.safetensors: no such file; weights are read from safetensors only'),
    ('tokenizer.json', r'tokenizer.json: no such file \(nor spiece.model\); on a machine with'),
    ('tokenizer_config.json', r'tokenizer_config.json: no such file; it says how texts of a SigLIP'),
  ],
)
def test_a_missing_file_is_named(name, message, tmp_path):
  folder = copy_of('siglip', tmp_path)
  (folder / name).unlink()
  with pytest.raises(UserError, match=message):
    open_towers(folder)


@pytest.mark.parametrize(
  ('file', 'change', 'message'),
  [
    (CONFIG, lambda c: c['text_config'].update(vocab_size=12), r'the tokenizer has the token \d+, config.json has 12'),
    (CONFIG, lambda c: c['text_config'].update(eos_token_id=3), r'the end token is \d+ of the tokenizer, 3 in config'),
    (CONFIG, lambda c: c.update(text_config=[]), r'text_config is list, expected an object'),
    (
      CONFIG,
      lambda c: c.update(projection_dim=8),
      r'projection/kernel has shape \(14, 7\), the model expects \(14, 8\)',
    ),
    (
      'tokenizer_config.json',
      lambda c: c.update(bos_token='<s>'),
      r"no token '<s>', the bos_token of tokenizer_config",
    ),
    ('tokenizer.json', lambda c: c.update(model={}), r'tokenizer.json: not a tokenizer file: '),
  ],
)
def test_a_text_side_that_cannot_be_used_says_why(file, change, message, tmp_path):
  folder = copy_of('clip', tmp_path)
  change_json(folder / file, change)
  with pytest.raises(UserError, match=message):
    open_towers(folder)


def test_a_processor_inside_a_newer_file_is_found(tmp_path):
  folder = copy_of('clip', tmp_path)
  content = json.loads((folder / PROCESSOR).read_text())
  (folder / PROCESSOR).unlink()
  (folder / 'processor_config.json').write_text(json.dumps({'image_processor': content}))
  assert open_vision(folder).preprocessing == vision_of('clip').preprocessing


def test_files_of_the_first_years_have_bare_sizes_and_no_name(tmp_path):
  folder = copy_of('clip', tmp_path)
  change_json(
    folder / PROCESSOR,
    lambda content: (content.update(size=23, crop_size=23), content.pop('image_processor_type')),
  )
  assert open_vision(folder).preprocessing == vision_of('clip').preprocessing
  folder = copy_of('vit', tmp_path)
  (folder / PROCESSOR).write_text(json.dumps({'size': 23, 'feature_extractor_type': 'ViTFeatureExtractor'}))
  assert open_vision(folder).preprocessing == vision_of('vit').preprocessing
