"""Ranking beside the bare matrix product, and encoding beside the bare forward pass.

Ranking has the size of MS-COCO 5K: 5,000 images, 25,000 captions, embeddings of 1024. "Bare" is one call of the matrix
library for all scores. Encoding is 5,000 captions through a BERT of MiniLM-L6's size, where the host's part of the work
weighs more than with BERT-base, and images of 36 regions of 2048, from host memory to NumPy arrays; "bare" is the
compiled encoder alone, on as many real words (captions of equal length, so no padding) or regions on the device.

  python benchmarks/evaluation.py
"""

import argparse
import statistics
import tracemalloc
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from measure import NUM_REGIONS, Figure, caption_lengths, in_turns, ratio, show

from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.data.tokenizer import TokenizedCaptions, build_vocabulary
from hrem_jax.methods.method import Method
from hrem_jax.methods.registry import build_method, default_config, init_variables
from hrem_jax.retrieval.encode import DataEncoder
from hrem_jax.retrieval.protocols import protocol_metrics
from hrem_jax.retrieval.scores import DotScores
from hrem_jax.sharding import data_mesh, replicate

NUM_IMAGES, TEXTS_PER_IMAGE, SIZE = 5_000, 5, 1024


def ranking(rounds: int) -> Iterator[Figure]:
  rng = np.random.default_rng(0)
  images, texts = (
    vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for vectors in (rng.standard_normal((count * NUM_IMAGES, SIZE), np.float32) for count in (1, TEXTS_PER_IMAGE))
  )
  owner = np.arange(len(texts)) // TEXTS_PER_IMAGE
  times = in_turns(
    {
      'product': lambda: images @ texts.T,
      '5K': lambda: protocol_metrics(DotScores(images, texts), owner, protocol='coco_5k'),
      'coco': lambda: protocol_metrics(DotScores(images, texts), owner, protocol='coco'),
    },
    rounds,
  )
  note = f'{statistics.median(times["5K"]):.2f} s'
  yield Figure('ranking COCO 5K: times the product', ratio(times, '5K', 'product'), 'x', at_most=1.3, note=note)
  yield Figure('ranking 5K and five folds: times the product', ratio(times, 'coco', 'product'), 'x')
  tracemalloc.start()
  protocol_metrics(DotScores(images, texts), owner, protocol='coco_5k')
  peak, whole = tracemalloc.get_traced_memory()[1], 4 * len(images) * len(texts)
  tracemalloc.stop()
  note = f'{peak / 1e6:.0f} MB; all scores are {whole / 1e6:.0f} MB'
  yield Figure('ranking COCO 5K: memory of all scores', peak / whole, 'x', note=note)


class InMemory:
  """Images as the encoder wants to be given them."""

  def __init__(self, regions: np.ndarray):
    self._regions = regions

  def __len__(self) -> int:
    return len(self._regions)

  def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return self._regions[index], np.ones((len(index), NUM_REGIONS), bool)


def make_captions(lengths: np.ndarray, rng: np.random.Generator) -> TokenizedCaptions:
  """Random words; `lengths` count the two special tokens that encoding adds."""
  offsets = np.concatenate([[0], np.cumsum(lengths - 2)])
  return TokenizedCaptions(
    rng.integers(10, 10_000, offsets[-1]).astype(np.int32), np.ones(offsets[-1], np.int32), offsets
  )


def make_encoder(config: ml_collections.ConfigDict, chunk_size: int) -> tuple[Method, dict, DataEncoder]:
  """The model with random variables, and what sends data sets through it."""
  method, mesh = build_method(config), data_mesh()
  variables = replicate(jax.device_get(init_variables(method, config, jax.random.key(0))), mesh)
  return method, variables, DataEncoder(method, mesh, chunk_size=chunk_size)


def encoding(rounds: int, num_captions: int, num_images: int) -> Iterator[Figure]:
  config, rng = default_config(), np.random.default_rng(0)
  config.model.bert.update(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536)
  chunk = config.evaluation.batch_size
  method, variables, encoder = make_encoder(config, chunk)
  lengths = caption_lengths(num_captions, rng)
  captions = make_captions(lengths, rng)
  mean = round(lengths.mean())
  bare_count = round(lengths.sum() / mean / chunk) * chunk  # captions of the mean length with as many words
  tokens = jnp.asarray(rng.integers(10, 10_000, (chunk, mean)))
  images = InMemory(rng.standard_normal((num_images, NUM_REGIONS, config.model.region_size), np.float32))
  regions = jnp.asarray(images.rows(np.arange(chunk))[0])

  def bare(name: str, inputs: ImageInputs | TextInputs, chunks: int):
    encode = jax.jit(lambda variables, inputs: method.apply(variables, inputs, method=name).embedding)
    return lambda: [jax.block_until_ready(encode(variables, inputs)) for _ in range(chunks)]

  tokenizer = build_vocabulary(['the special tokens'])
  functions = {
    'captions': lambda: encoder.encode_texts(variables, captions, tokenizer, config.data.length_buckets[-1]),
    'bare captions': bare('encode_texts', TextInputs(tokens, jnp.ones(tokens.shape, bool)), bare_count // chunk),
    'images': lambda: encoder.encode_images(variables, images),
    'bare images': bare('encode_images', ImageInputs(regions, jnp.ones(regions.shape[:2], bool)), num_images // chunk),
  }
  times = in_turns(functions, rounds)
  # The bare forward pass takes whole chunks: by how much its work differs.
  scales = dict(captions=lengths.sum() / (bare_count * mean), images=num_images / (num_images // chunk * chunk))
  for (name, scale), count in zip(scales.items(), (num_captions, num_images), strict=True):
    note = f'{count / statistics.median(times[name]):.1f} per second'
    times_bare = ratio(times, name, f'bare {name}') / scale
    yield Figure(f'encoding {name}: times the bare forward', times_bare, 'x', at_most=1.3, note=note)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--parts', nargs='+', choices=['ranking', 'encoding'], default=['ranking', 'encoding'])
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--captions', type=int, default=5000, help='to encode')
  parser.add_argument('--images', type=int, default=1024, help='to encode')
  arguments = parser.parse_args()
  parts = {
    'ranking': lambda: ranking(arguments.rounds),
    'encoding': lambda: encoding(arguments.rounds, arguments.captions, arguments.images),
  }
  show('evaluation', (row for part in arguments.parts for row in parts[part]()))


if __name__ == '__main__':
  main()
