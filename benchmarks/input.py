"""Whether reading keeps up: the start, the examples per second of the pipeline on one core, and its memory.

Makes files of the size of MS-COCO in a temporary folder: 566,435 captions of words drawn by Zipf's law, with lengths
like MS-COCO's, and 113,287 images of 36 x 2048 float32. The 33 GB of features are a sparse file: it takes no space, and
reading it gives zeros at the speed of the kernel, not of a disk. All else that is done with a row (system call, page
cache, copy, check) costs what it costs with real ones.

Every measurement has a process of its own:
  * from the start of the process until the first batch is there (imports, checks, captions, vocabulary, tokens), with
    an empty cache and again with the one just made; making and compiling the model is not in it;
  * batches of 128 examples, packed and augmented, in random order over the whole file, with the process on one core;
    first with the file dropped from the kernel's page cache, as most of 33 GB is in a training, then the same again;
  * the peak of resident memory of both. Pages of a memory-mapped file would count as resident.

Beside the wall time stands the processor's time, which other load on the machine changes less. Linux only.

  python benchmarks/input.py --weights FOLDER_OF_A_BERT

Without `--weights` there is no WordPiece vocabulary to measure, only the BiGRU's own.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from measure import Figure, show

NUM_IMAGES, CAPTIONS_PER_IMAGE, NUM_HELD_OUT = 113_287, 5, 100
NUM_REGIONS, REGION_SIZE = 36, 2048
NUM_WORDS = 5_000
DEMO_RATE = 570  # examples per second of configs/demo.py on two cores


def words_of(weights: pathlib.Path | None) -> np.ndarray:
  """Whole words of the BERT, so that as few as in English are taken to pieces; without it syllables."""
  if weights is None:
    syllables = [''.join(pair) for pair in itertools.product('bdfgklmnprst', 'aeiou')]
    words = map(''.join, itertools.product(syllables, repeat=3))
  else:
    words = filter(str.isalpha, (weights / 'vocab.txt').read_text('utf-8').splitlines())
  return np.array(list(itertools.islice(filter(str.isascii, words), NUM_WORDS)), object)


def caption_lengths(count: int, rng: np.random.Generator) -> np.ndarray:
  """In words: 10.5 on average, most from 7 to 16, one in a thousand up to 45."""
  lengths = rng.lognormal(np.log(10.25), 0.21, count).round().astype(int)
  return np.where(rng.random(count) < 0.001, rng.integers(20, 46, count), lengths).clip(4, 45)


def write_captions(path: pathlib.Path, count: int, words: np.ndarray, rng: np.random.Generator) -> None:
  shares = 1 / np.arange(1, len(words) + 1)
  with path.open('w', encoding='utf-8') as file:
    for part in np.array_split(caption_lengths(count, rng), count // 10_000 + 1):
      drawn = iter(words[rng.choice(len(words), part.sum(), p=shares / shares.sum())])
      file.writelines(f'{" ".join(itertools.islice(drawn, length)).capitalize()} .\n' for length in part)


def write_sparse(path: pathlib.Path, num_rows: int) -> None:
  """A `.npy` file of zeros that takes no space."""
  header = {'descr': '<f4', 'fortran_order': False, 'shape': (num_rows, NUM_REGIONS, REGION_SIZE)}
  with path.open('wb') as file:
    np.lib.format.write_array_header_1_0(file, header)
    file.truncate(file.tell() + num_rows * NUM_REGIONS * REGION_SIZE * 4)


def write_files(folder: pathlib.Path, weights: pathlib.Path | None) -> None:
  rng, words = np.random.default_rng(0), words_of(weights)
  folder.mkdir()
  for split, num_images in (('train', NUM_IMAGES), ('dev', NUM_HELD_OUT), ('test', NUM_HELD_OUT)):
    write_captions(folder / f'{split}_caps.txt', num_images * CAPTIONS_PER_IMAGE, words, rng)
    write_sparse(folder / f'{split}_ims.npy', num_images)


def measure(arguments: argparse.Namespace) -> dict:
  """In a process of its own: the start and, with `--batches`, what comes after it."""
  from hrem_jax.methods.registry import default_config
  from hrem_jax.training.loop import prepare, read_ahead  # with all that a training imports

  config = default_config()
  config.data.update(directory=str(arguments.folder), name='coco', cache=str(arguments.folder / 'cache'))
  config.model.update(text=arguments.text, weights=str(arguments.weights) if arguments.text == 'bert' else '')
  setup = prepare(config, pathlib.Path(tempfile.mkdtemp(dir=arguments.folder)))
  next(read_ahead(setup.batches, setup.num_steps))
  started = dict(finished=time.time(), processor=processor_seconds())
  if arguments.batches:
    drop_from_page_cache(setup.train.features.path)
    for name in ('dropped', 'cached'):
      started[name] = rates(read_ahead(setup.batches, setup.num_steps), arguments.batches, config.training.batch_size)
  return started | dict(gigabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def rates(batches: Iterator, count: int, batch_size: int) -> list[float]:
  """Examples per second, and per second of the processor."""
  next(batches)  # threads start
  started, processor = time.perf_counter(), processor_seconds()
  for _ in range(count):
    next(batches)
  seconds = time.perf_counter() - started, processor_seconds() - processor
  return [count * batch_size / each for each in seconds]


def drop_from_page_cache(path: pathlib.Path) -> None:
  with path.open('rb') as file:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def processor_seconds() -> float:
  return sum(os.times()[:2])


def in_new_process(arguments: argparse.Namespace, folder: pathlib.Path, text: str, *, batches: int = 0) -> dict:
  """What `measure` returns, the seconds since the start of its process included; on one core if it reads batches."""
  core = {min(os.sched_getaffinity(0))}
  command = [sys.executable, __file__, '--folder', folder, '--text', text, '--batches', str(batches)]
  if arguments.weights:
    command += ['--weights', arguments.weights]
  pin, started = functools.partial(os.sched_setaffinity, 0, core), time.time()
  child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=pin if batches else None)
  measured = json.loads(child.stdout)
  return measured | dict(seconds=measured['finished'] - started)


def compare(arguments: argparse.Namespace, folder: pathlib.Path, text: str) -> Iterator[Figure]:
  peak = 0.0
  for cache, limit in (('empty cache', 60), ('with the cache', 10)):
    start = in_new_process(arguments, folder, text)
    peak = max(peak, start['gigabytes'])
    note = f'{start["processor"]:.1f} s of the processor'
    yield Figure(f'{text}: start, {cache}', start['seconds'], 's', at_most=limit, note=note)
  reading = in_new_process(arguments, folder, text, batches=arguments.batches)
  for name in ('cached', 'dropped'):
    wall, processor = reading[name]
    note = f'{processor:.0f} per second of the processor'
    yield Figure(f'{text}: examples/s on one core, file {name}', wall, note=note)
  for rate, times in ((arguments.step_examples_per_second, 5), (DEMO_RATE, None)):
    yield Figure(f'{text}: times a step of {rate:g} examples/s', wall / rate, 'x', at_least=times)
  note = f'{peak:.2f} GB at the start'
  yield Figure(f'{text}: peak memory, {arguments.batches} batches', max(peak, reading['gigabytes']), 'GB', 2, note=note)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--weights', type=pathlib.Path, help='folder of a BERT, for its WordPiece vocabulary')
  parser.add_argument('--step-examples-per-second', type=float, default=30, help='of BERT-base at batch 128')
  parser.add_argument('--batches', type=int, default=200, help='to read; 4425 are an epoch')
  parser.add_argument('--text', help=argparse.SUPPRESS)  # of one measurement, in the folder of the files
  parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.folder:
    print(json.dumps(measure(arguments)))
    return
  with tempfile.TemporaryDirectory() as name:
    folder, texts = pathlib.Path(name), ['bigru', 'bert'] if arguments.weights else ['bigru']
    write_files(folder / 'coco_precomp', arguments.weights)
    show('input', (row for text in texts for row in compare(arguments, folder, text)))


if __name__ == '__main__':
  main()
