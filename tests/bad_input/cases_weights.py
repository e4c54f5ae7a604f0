"""Pretrained weights, vocabularies, word vectors, and checkpoints of the authors' program."""

import pickle

import safetensors.numpy

from bad_input.breaking import cut, entry, gone, lines, put, raw
from bad_input.cases_data import TRAIN
from bad_input.table import Case

BERT = f'{TRAIN} --config.model.text=bert --config.model.weights=W/bert'
SCAN = f'{TRAIN} --config.model.vocabulary=W/scan.json'
VECTORS = f'{TRAIN} --config.model.word_vectors=W/vectors.txt'
CONVERT = 'convert W/release.pth --output W/new --vocabulary W/vocab.txt --bert-heads 4'
CODE = b'cposix\nsystem\n(S"touch W/hacked"\ntR.'


def tensors(change):
  def breaks(world):
    path = world / 'bert' / 'model.safetensors'
    content = safetensors.numpy.load_file(path)
    change(content)
    safetensors.numpy.save_file(content, path)

  return breaks


def duplicate(content):
  content['word2idx']['dog'] = content['word2idx']['cat']


CASES = [
  Case(
    'weights that are not there', BERT.replace('W/bert', 'W/nothing'), "config.model.weights='nothing': no such folder"
  ),
  Case('weights without config.json', BERT, 'bert/config.json: no such file', gone('bert/config.json')),
  Case('config.json of the weights is no JSON', BERT, 'bert/config.json: not JSON', raw('bert/config.json', b'{')),
  Case(
    'config.json of the weights is a list',
    BERT,
    'bert/config.json: JSON of type list, expected an object',
    raw('bert/config.json', b'[]'),
  ),
  Case(
    'weights of another model',
    BERT,
    "model_type is 'roberta', expected 'bert'",
    entry('bert/config.json', lambda c: c.update(model_type='roberta')),
  ),
  Case(
    'a size is missing',
    BERT,
    "bert/config.json: no key 'hidden_size'",
    entry('bert/config.json', lambda c: c.pop('hidden_size')),
  ),
  Case(
    'a size is a word',
    BERT,
    "hidden_size is 'large', expected a positive integer",
    entry('bert/config.json', lambda c: c.update(hidden_size='large')),
  ),
  Case(
    'no model.safetensors',
    BERT,
    'bert/model.safetensors: no such file; weights are read from',
    gone('bert/model.safetensors'),
  ),
  Case(
    'safetensors cut off',
    BERT,
    'bert/model.safetensors: not a whole safetensors file',
    cut('bert/model.safetensors', 4000),
  ),
  Case(
    'a tensor is missing',
    BERT,
    "model.safetensors: no tensor 'encoder.layer.1.output.dense.bias'",
    tensors(lambda t: t.pop('encoder.layer.1.output.dense.bias')),
  ),
  Case(
    'a tensor of another shape',
    BERT,
    r'word_embeddings.* has shape \(7, 8\), the model expects \(31, 8\)',
    tensors(
      lambda t: t.update({'embeddings.word_embeddings.weight': t['embeddings.word_embeddings.weight'][:7].copy()})
    ),
  ),
  Case(
    'layers of different shapes',
    BERT,
    'layers of different shapes',
    tensors(
      lambda t: t.update({'encoder.layer.1.output.dense.bias': t['encoder.layer.1.output.dense.bias'][:3].copy()})
    ),
  ),
  Case('weights without a vocabulary', BERT, 'bert: neither vocab.txt nor tokenizer.json', gone('bert/vocab.txt')),
  Case(
    'a vocabulary without [MASK]',
    BERT,
    r'vocab.txt: the vocabulary has no token \[MASK\]',
    lines('bert/vocab.txt', put(4, 'mask')),
  ),
  Case(
    'a vocabulary that is not UTF-8',
    BERT,
    'bert/vocab.txt: line 2 is not UTF-8: byte 0xff',
    raw('bert/vocab.txt', b'[PAD]\n\xff\n'),
  ),
  Case(
    'a vocabulary larger than the embeddings',
    BERT,
    'a token has the number 33, expected below the vocab_size',
    lines('bert/vocab.txt', lambda a: [*a, *(f'w{n}' for n in range(14))]),
  ),
  Case('no SCAN vocabulary', SCAN, 'scan.json: no such file', gone('scan.json')),
  Case('a SCAN vocabulary that is no JSON', SCAN, 'scan.json: not JSON', cut('scan.json', 50)),
  Case(
    'a SCAN vocabulary without a key',
    SCAN,
    "scan.json: no key 'idx2word'",
    entry('scan.json', lambda c: c.pop('idx2word')),
  ),
  Case('a number for two words', SCAN, r'scan.json: word2idx gives \d+ to', entry('scan.json', duplicate)),
  Case(
    'a vocabulary for a BERT',
    f'{BERT} --config.model.vocabulary=W/scan.json',
    "config.model.vocabulary is for config.model.text='bigru'",
  ),
  Case('no word vectors', VECTORS, 'vectors.txt: no such file', gone('vectors.txt')),
  Case(
    'word vectors of another size',
    VECTORS,
    'vectors.txt: line 3: 1 numbers after the word, expected config.model.bigru.word_size=11',
    lines('vectors.txt', put(2, 'car 0.5')),
  ),
  Case(
    'a word vector with a word in it',
    VECTORS,
    "vectors.txt: line 3: 'x' is not a finite number",
    lines('vectors.txt', put(2, 'car' + ' 0.5' * 10 + ' x')),
  ),
  Case('convert: no checkpoint', CONVERT, 'release.pth: cannot be read: No such file', gone('release.pth')),
  Case('convert: cut off', CONVERT, 'release.pth: damaged, not a whole PyTorch checkpoint', cut('release.pth', 30000)),
  Case('convert: a pickle that runs a program', CONVERT, 'release.pth: .*system', raw('release.pth', CODE)),
  Case(
    'convert: a pickle of something else',
    CONVERT,
    'release.pth: no PyTorch checkpoint: its magic number',
    raw('release.pth', pickle.dumps([1])),
  ),
  Case('convert: no vocabulary', 'convert W/release.pth --output W/new', '--vocabulary is missing'),
  Case(
    'convert: a vocabulary of another size',
    CONVERT,
    'vocab.txt: 150 tokens, but the word embeddings',
    lines('vocab.txt', lambda a: a[:150]),
  ),
  Case('convert: the output is there', CONVERT.replace('W/new', 'W/run'), 'run: exists already, expected is a new'),
]
