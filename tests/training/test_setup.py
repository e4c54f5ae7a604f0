"""What files decide about a training, before its first step."""

import json

import jax
import numpy as np
import synthetic

from hrem_jax.sharding import data_mesh
from hrem_jax.training.setup import first_state, prepare

SIZE = 11


def embeddings_of(config, workdir):
  """The vocabulary, and the first state's word embeddings and all other parameters."""
  setup = prepare(config, workdir)
  params = jax.device_get(first_state(setup, data_mesh()).params)
  return setup.run, params['text_encoder']['language_model'].pop('word_embeddings'), params


def test_vocabulary_and_word_vectors_of_others(directory, capsys):
  words = ['<pad>', '<start>', '<end>', '<unk>', 'dog', 'cat', 'a']
  content = {'word2idx': {w: i for i, w in enumerate(words)}, 'idx2word': dict(enumerate(words)), 'idx': len(words)}
  (directory / 'vocabulary.json').write_text(json.dumps(content))
  lines = ' '.join(['cat', *map(str, range(SIZE))]), ' '.join(['zebra', *['7'] * SIZE])
  (directory / 'glove.txt').write_text('\n'.join(lines) + '\n')
  config = synthetic.tiny_config(directory)
  config.model.vocabulary = str(directory / 'vocabulary.json')
  run, random, others = embeddings_of(config, directory / 'random')
  assert run.config.model.bigru.vocab_size == random.shape[0] == 8
  assert run.tokenizer.encode(['a cat and a dog'])[0][0] == [6, 5, 3, 6, 4]
  assert 'vectors for' not in capsys.readouterr().err

  config.model.word_vectors = str(directory / 'glove.txt')
  _, embeddings, same = embeddings_of(config, directory / 'glove')
  assert 'glove.txt: vectors for 1 of 8 words of the vocabulary' in capsys.readouterr().err
  assert (embeddings.shape, embeddings.dtype) == ((8, SIZE), np.float32)
  np.testing.assert_array_equal(embeddings[5], np.arange(SIZE))
  np.testing.assert_array_equal(np.delete(embeddings, 5, axis=0), np.delete(random, 5, axis=0))
  jax.tree.map(np.testing.assert_array_equal, same, others)

  (directory / 'vocabulary.json').unlink()  # a workdir has its own copy
  assert embeddings_of(config, directory / 'glove')[0].tokenizer.to_json() == run.tokenizer.to_json()
