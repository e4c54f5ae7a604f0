"""The whole world that cases break: a data set, runs, weights, vocabularies, a release's checkpoint."""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy
import small_pictures
import synthetic
from small_pictures import make_folder

from hrem_jax import cli

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
SIZES = dict(vocab_size=31, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=11)
CONFIG = """import pathlib

import synthetic


def get_config():
  config = synthetic.tiny_config(pathlib.Path({folder!r}))
  return config
"""


def make(world: pathlib.Path) -> None:
  """Writes everything; a minute at most, once for all cases."""
  synthetic.write_data_set(world / 'data')
  (world / 'config.py').write_text(CONFIG.format(folder=str(world.parent)))
  config = synthetic.tiny_config(world / 'data')
  config.data.cache = str(world.with_name('cache'))
  synthetic.write_run(config, world / 'run')
  cli.run(['convert-data', str(world / 'data'), '--output', str(world / 'tfds')])
  cli.run(f'encode {world}/run --data {world}/data --index {world}/index --split test'.split())
  _write_bert(world / 'bert')
  words = ['<pad>', '<start>', '<end>', '<unk>', 'a', 'and', 'near', 'the', *synthetic.WORDS]
  numbers = {word: number for number, word in enumerate(words)}
  inverse = {str(number): word for word, number in numbers.items()}
  (world / 'scan.json').write_text(json.dumps({'word2idx': numbers, 'idx2word': inverse, 'idx': len(words)}))
  vectors = [f'{word} {" ".join(["0.5"] * 11)}' for word in synthetic.WORDS]
  (world / 'vectors.txt').write_text('\n'.join(vectors) + '\n')
  shutil.copy(GOLDEN / 'model_best.pth', world / 'release.pth')
  (world / 'vocab.txt').write_text('\n'.join([*SPECIAL, *(f'word{number}' for number in range(195))]) + '\n')
  small_pictures.make_folder(world / 'pictures', 4, captions=1)
  (world / 'table.csv').write_text(''.join(f'{line}\n' for line in ('filepath,title', 'pictures/picture_0.jpg,a dog')))
  _write_annotations(world)
  (world / 'file').write_text('in the way\n')
  (world / 'empty').mkdir()
  make_folder(world / 'photos', 2)
  shutil.copytree(GOLDEN / 'towers' / 'siglip', world / 'siglip')


def _write_annotations(world: pathlib.Path) -> None:
  """What COCO's file of captions would be for the test split."""
  captions = (world / 'data' / 'tiny_precomp' / 'test_caps.txt').read_text().splitlines()
  rows = [dict(id=100 + row, image_id=row // 5, caption=caption) for row, caption in enumerate(captions)]
  (world / 'annotations.json').write_text(json.dumps({'annotations': rows}))


def _write_bert(folder: pathlib.Path) -> None:
  folder.mkdir()
  config = SIZES | dict(max_position_embeddings=16, model_type='bert', hidden_act='gelu')
  (folder / 'config.json').write_text(json.dumps(config))
  words = [*SPECIAL, 'a', 'and', 'near', 'the', *synthetic.WORDS]
  (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
  size, inner, names = SIZES['hidden_size'], SIZES['intermediate_size'], {}
  for name, rows in (('word', 31), ('position', 16), ('token_type', 2)):
    names[f'embeddings.{name}_embeddings.weight'] = (rows, size)
  norms, dense = ['embeddings.LayerNorm'], {}
  for layer in range(SIZES['num_hidden_layers']):
    at = f'encoder.layer.{layer}'
    dense |= {f'{at}.attention.self.{name}': (size, size) for name in ('query', 'key', 'value')}
    dense |= {f'{at}.attention.output.dense': (size, size), f'{at}.intermediate.dense': (inner, size)}
    dense |= {f'{at}.output.dense': (size, inner)}
    norms += [f'{at}.attention.output.LayerNorm', f'{at}.output.LayerNorm']
  for name, shape in dense.items():
    names |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
  for name in norms:
    names |= {f'{name}.weight': (size,), f'{name}.bias': (size,)}
  rng = np.random.default_rng(0)
  tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in names.items()}
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
