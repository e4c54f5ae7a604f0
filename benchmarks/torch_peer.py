"""The same work in PyTorch, done as the authors' release does it (`torch_model.py`): how many times longer it takes.

In alternating rounds, on the same random inputs: BERT-base with random weights, 36 regions of 2048, captions of 14
tokens on average and 40 at most. PyTorch works in a process of its own: its threads turn idle on the cores for a while
after each call. `tests/benchmarks/test_torch_peer.py` shows that both programs give the same numbers from the same
weights. Needs torch (`pip install torch`), and memory: about 15 GB at batch 128.

* step: forward, backward, clipping and AdamW with the association graph; captions padded to the longest of the batch
* association: the graph's matrices from fragments, dense `[i, t, r, w]`
* encoding: images with five captions each to embeddings, 128 at a time in their order, padded to the longest of them:
  of random captions that is 30 rather than 40 tokens, and so many places more per word is what there is to save
* ranking: COCO 5K, one sort of all candidates per query

  python benchmarks/torch_peer.py
"""

import argparse
import contextlib
import functools
import multiprocessing
import statistics
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import jax
import jax.numpy as jnp
import numpy as np
import torch
from evaluation import NUM_IMAGES, SIZE, TEXTS_PER_IMAGE, InMemory, make_captions, make_encoder
from measure import MAX_WORDS, NUM_REGIONS, Figure, caption_lengths, in_turns, make_batch, ratio, show
from step import Step
from torch_model import Peer, TorchBatch, fragment_relations

from hrem_jax.data.batch import Batch
from hrem_jax.data.tokenizer import TokenizedCaptions, build_vocabulary
from hrem_jax.methods.registry import default_config
from hrem_jax.ops import relations
from hrem_jax.retrieval.protocols import protocol_metrics
from hrem_jax.retrieval.scores import DotScores

BATCH = 128  # of the release when it encodes


def padded(batch: Batch) -> TorchBatch:
  """The captions of a packed batch, one per row, as wide as the longest."""
  rows, packing = np.asarray(batch.texts.tokens), batch.texts.packing
  groups = rows.reshape(len(packing.index), -1)
  places = np.minimum(packing.index, groups.shape[1] - 1).reshape(len(groups), -1)
  mask = np.asarray(packing.mask).reshape(-1, packing.mask.shape[-1])
  tokens = np.where(mask, np.take_along_axis(groups, places, axis=1).reshape(mask.shape), 0)
  width = int(mask.sum(1).max())
  arrays = batch.images.regions, batch.images.mask, tokens[:, :width], mask[:, :width], batch.image_ids
  tensors = [torch.from_numpy(np.array(array)) for array in arrays]
  return TorchBatch(*tensors[:2], tensors[2].long(), *tensors[3:])


def work(connection: Connection, make: Callable[..., dict[str, Callable]], *arguments: int) -> None:
  """In a process of its own: calls the functions that are asked for."""
  torch.manual_seed(0)
  functions = make(*arguments)
  connection.send(list(functions))
  while (name := connection.recv()) is not None:
    functions[name]()
    connection.send(name)


@contextlib.contextmanager
def in_a_process(make: Callable[..., dict[str, Callable]], *arguments: int) -> Iterator[dict[str, Callable]]:
  """The functions that `make(*arguments)` gives, called in another process; the answer is awaited."""
  spawning = multiprocessing.get_context('spawn')
  here, there = spawning.Pipe()
  process = spawning.Process(target=work, args=(there, make, *arguments), daemon=True)
  process.start()
  there.close()

  def call(name: str) -> None:
    here.send(name)
    here.recv()

  yield {name: functools.partial(call, name) for name in here.recv()}
  here.send(None)
  process.join()


def compared(name: str, functions: dict[str, Callable], rounds: int, at_least: float | None) -> Iterator[Figure]:
  """The peer's time as a multiple of ours, with the medians of both."""
  times = in_turns(functions, rounds)
  peer, ours = (statistics.median(times[who]) for who in ('peer', 'ours'))
  note = f'{peer:.3g} s and {ours:.3g} s'
  yield Figure(f'{name}: PyTorch, times ours', ratio(times, 'peer', 'ours'), 'x', at_least=at_least, note=note)


def peer_step(size: int) -> dict[str, Callable]:
  config = default_config()
  peer, batch = Peer(config), padded(make_batch(config, size))
  return {'peer': lambda: peer.update(batch)}


def step(size: int, rounds: int) -> Iterator[Figure]:
  config = default_config()
  with in_a_process(peer_step, size) as peer:
    functions = {**peer, 'ours': Step(config, make_batch(config, size), [], graph=True)}
    yield from compared(f'step, batch {size}', functions, rounds, 2.5)


def make_fragments(size: int) -> tuple[np.ndarray, ...]:
  """Regions, words, and which of the words are real."""
  rng = np.random.default_rng(0)
  mask = np.arange(MAX_WORDS) < caption_lengths(size, rng)[:, None]
  shapes = (size, NUM_REGIONS, SIZE), (size, MAX_WORDS, SIZE)
  return *(rng.standard_normal(shape, np.float32) for shape in shapes), mask


def peer_association(size: int) -> dict[str, Callable]:
  regions, words = map(torch.from_numpy, make_fragments(size)[:2])
  top_k = default_config().hrem.association.top_k
  return {'peer': lambda: fragment_relations(regions, words, top_k)}


def association(size: int, rounds: int) -> Iterator[Figure]:
  regions, words, mask = make_fragments(size)
  inputs = tuple(jnp.asarray(x) for x in (regions, np.ones(regions.shape[:2], bool), words, mask))
  relate = jax.jit(relations.fragment_relations)
  with in_a_process(peer_association, size) as peer:
    yield from compared(f'association, batch {size}', {**peer, 'ours': lambda: relate(*inputs)}, rounds, 4.0)


@torch.no_grad()
def encode_captions(peer: Peer, captions: TokenizedCaptions, *, start: int, end: int) -> np.ndarray:
  embeddings = []
  for first in range(0, len(captions), BATCH):
    rows = [captions.caption(row)[0] for row in range(first, min(first + BATCH, len(captions)))]
    rows = [torch.tensor([start, *row.tolist(), end]) for row in rows]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in rows])
    embeddings.append(peer.text_encoder(tokens, mask).embedding.numpy())
  return np.concatenate(embeddings)


@torch.no_grad()
def encode_images(peer: Peer, images: InMemory) -> np.ndarray:
  """Each once; the release encodes an image again for each of its five captions."""
  embeddings = []
  for first in range(0, len(images), BATCH):
    rows = [torch.from_numpy(x) for x in images.rows(np.arange(first, min(first + BATCH, len(images))))]
    embeddings.append(peer.image_encoder(*rows).embedding.numpy())
  return np.concatenate(embeddings)


def make_data_set(num_images: int) -> tuple[TokenizedCaptions, InMemory]:
  rng = np.random.default_rng(0)
  captions = make_captions(caption_lengths(TEXTS_PER_IMAGE * num_images, rng), rng)
  regions = rng.standard_normal((num_images, NUM_REGIONS, default_config().model.region_size), np.float32)
  return captions, InMemory(regions)


def peer_encoding(num_images: int) -> dict[str, Callable]:
  captions, images = make_data_set(num_images)
  peer, tokenizer = Peer(default_config()).eval(), build_vocabulary(['the special tokens'])
  return {
    'peer captions': lambda: encode_captions(peer, captions, start=tokenizer.start, end=tokenizer.end),
    'peer images': lambda: encode_images(peer, images),
  }


def encoding(num_images: int, rounds: int) -> Iterator[Figure]:
  config, (captions, images) = default_config(), make_data_set(num_images)
  (_, variables, encoder), tokenizer = make_encoder(config, BATCH), build_vocabulary(['the special tokens'])
  ours = {
    'captions': lambda: encoder.encode_texts(variables, captions, tokenizer, config.data.length_buckets[-1]),
    'images': lambda: encoder.encode_images(variables, images),
  }
  with in_a_process(peer_encoding, num_images) as peer:
    times = in_turns({**peer, **ours}, rounds)
  lengths = captions.lengths
  places = sum(len(part) * part.max() for part in np.split(lengths, range(BATCH, len(lengths), BATCH)))
  yield Figure('encoding, captions: places per word in PyTorch', places / lengths.sum(), 'x')
  for name, count in (('captions', len(captions)), ('images', num_images)):
    peers, ours = (count / statistics.median(times[who]) for who in (f'peer {name}', name))
    note = f'{peers:.1f} and {ours:.1f} per second'
    yield Figure(f'encoding, {name}: PyTorch, times ours', ratio(times, f'peer {name}', name), 'x', note=note)
  both = {who: np.add(times[f'{who}captions'], times[f'{who}images']).tolist() for who in ('peer ', '')}
  yield Figure('encoding, both: PyTorch, times ours', ratio(both, 'peer ', ''), 'x', at_least=2.5)


def rank_by_sorting(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
  """Recalls of `TEXTS_PER_IMAGE` texts per image in order: all scores, and one sort per query."""
  similarity = images @ texts.T

  def recalls(ranks: np.ndarray) -> list[float]:
    return [100.0 * float(np.mean(ranks < k)) for k in (1, 5, 10)]

  first_match, owner = np.zeros(len(images)), np.zeros(len(texts))
  for image, scores in enumerate(similarity):
    order = np.argsort(scores)[::-1]
    own = range(TEXTS_PER_IMAGE * image, TEXTS_PER_IMAGE * (image + 1))
    first_match[image] = min(np.where(order == text)[0][0] for text in own)
  for text, scores in enumerate(similarity.T):
    owner[text] = np.where(np.argsort(scores)[::-1] == text // TEXTS_PER_IMAGE)[0][0]
  names = [f'{direction}/r{k}' for direction in ('i2t', 't2i') for k in (1, 5, 10)]
  return dict(zip(names, recalls(first_match) + recalls(owner), strict=True))


def ranking(rounds: int) -> Iterator[Figure]:
  rng = np.random.default_rng(0)
  images, texts = (
    rng.standard_normal((count * NUM_IMAGES, SIZE), np.float32) / SIZE**0.5 for count in (1, TEXTS_PER_IMAGE)
  )
  owner = np.arange(len(texts)) // TEXTS_PER_IMAGE
  functions = {
    'peer': lambda: rank_by_sorting(images, texts),
    'ours': lambda: protocol_metrics(DotScores(images, texts), owner, protocol='coco_5k'),
  }
  yield from compared('ranking COCO 5K', functions, rounds, 4.0)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  names = ['step', 'association', 'encoding', 'ranking']
  parser.add_argument('--parts', nargs='+', choices=names, default=names)
  parser.add_argument('--batch-sizes', type=int, nargs='+', default=[64, 128], help='of step')
  parser.add_argument('--graph-sizes', type=int, nargs='+', default=[64, 128, 256], help='of association')
  parser.add_argument('--images', type=int, default=256, help='to encode, with five captions each')
  parser.add_argument('--rounds', type=int, default=3)
  arguments = parser.parse_args()
  rounds = arguments.rounds
  parts = {
    'step': lambda: (row for size in arguments.batch_sizes for row in step(size, rounds)),
    'association': lambda: (row for size in arguments.graph_sizes for row in association(size, rounds)),
    'encoding': lambda: encoding(arguments.images, rounds),
    'ranking': lambda: ranking(rounds),
  }
  title = f'PyTorch {torch.__version__} with {torch.get_num_threads()} threads'
  print(title, flush=True)
  show('torch peer', (row for part in arguments.parts for row in parts[part]()))


if __name__ == '__main__':
  main()
