"""How much of a training step is saved by packing captions instead of padding them.

The text encoder has the size of MiniLM-L6, the captions have lengths like those of Flickr8K (14.3 tokens on average,
30 at most); tokens and regions are random. No data is needed:

  python benchmarks/packing.py
"""

import argparse
import time

import jax
import ml_collections
import numpy as np
from measure import build_step

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import lay_out, pack_rows
from hrem_jax.data.pipeline import bucket_for
from hrem_jax.methods.registry import default_config
from hrem_jax.sharding import data_mesh, replicate, split_batch

BUCKETS = (16, 20, 24, 28, 32)
PAD = 0


def make_config(arguments: argparse.Namespace) -> ml_collections.ConfigDict:
  config = default_config()
  config.model.update(embedding_size=256, region_size=256, text=arguments.text)
  config.hrem.update(num_heads=16)
  config.model.bert.update(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536)
  return config


def caption_lengths(size: int, rng: np.random.Generator) -> np.ndarray:
  """Gamma: the mean and the tail of English captions."""
  return np.clip(rng.gamma(11.0, 1.3, size).round(), 5, 30).astype(int)


def make_batches(arguments: argparse.Namespace) -> dict[str, Batch]:
  """The same captions and images padded, and packed for every width of rows."""
  rng, size = np.random.default_rng(0), arguments.batch_size
  lengths = caption_lengths(size, rng)
  width = bucket_for(int(lengths.max()), BUCKETS)
  mask = np.arange(width) < lengths[:, None]
  tokens = np.where(mask, rng.integers(1, 10_000, mask.shape), PAD).astype(np.int32)
  regions = rng.normal(size=(size, 36, 256)).astype(np.float32)
  images = ImageInputs(regions, np.ones((size, 36), bool))
  ids = np.arange(size, dtype=np.int32)
  print(f'{size} captions of {lengths.mean():.1f} tokens on average, {lengths.max()} at most')
  batches = {'padded': Batch(images, TextInputs(tokens, mask), ids)}
  for row_width in arguments.row_widths:
    layout = lay_out(lengths, num_groups=jax.device_count(), row_width=max(row_width, width))
    rows, row_mask, packing = pack_rows(tokens, mask, layout, pad=PAD)
    batches[f'packed, rows of {row_width}'] = Batch(images, TextInputs(rows, row_mask, packing), ids)
  return batches


def seconds_per_step(config: ml_collections.ConfigDict, batch: Batch, arguments: argparse.Namespace) -> float:
  """The fastest of some steps after one that warms up."""
  (step, init), mesh, times = build_step(config, graph=arguments.graph), data_mesh(), []
  # Where the step leaves its state: from elsewhere the second step would be compiled again.
  state, batch = replicate(init(jax.random.key(0)), mesh), split_batch(batch, mesh)
  for _ in range(arguments.steps + 1):
    started = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch, 0))
    times.append(time.perf_counter() - started)
  return min(times[1:])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch-size', type=int, default=128)
  parser.add_argument('--row-widths', type=int, nargs='+', default=[32, 64, 128])
  parser.add_argument('--text', choices=['bert', 'bigru'], default='bert')
  parser.add_argument('--steps', type=int, default=4)
  parser.add_argument('--graph', action='store_true', help='a step after the warm-up: with the association graph')
  arguments = parser.parse_args()
  config, padded = make_config(arguments), None
  for name, batch in make_batches(arguments).items():
    seconds = seconds_per_step(config, batch, arguments)
    padded = padded or seconds
    words = f'{batch.texts.tokens.size} places for {batch.texts.mask.sum()} words'
    print(f'{name:>20}: {words}, {seconds:.2f} s per step, {seconds / padded:.2f} of padded', flush=True)


if __name__ == '__main__':
  main()
