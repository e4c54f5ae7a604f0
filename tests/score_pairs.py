"""A program for `test_pair_scores.py`: a split scored by `SmallMethod` on whatever devices and processes there are.

`score_pairs.py --data=DIRECTORY --output=FOLDER [--store=FOLDER]
[--coordinator=... --num_processes=... --process_id=...]` writes the matrix of process I to `FOLDER/I.npy`.
"""

import argparse
import pathlib

import jax
import numpy as np
import synthetic
from small_method import SmallMethod

from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.data.pipeline import pad_tokens
from hrem_jax.data.precomputed import load_split
from hrem_jax.data.tokenizer import build_vocabulary, tokenize
from hrem_jax.distributed import processes
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.run import Run
from hrem_jax.sharding import data_mesh, replicate


class World:
  """A test split, a run of `SmallMethod`, and what that scores without any blocks."""

  def __init__(self, directory: pathlib.Path, **settings):
    self.split = load_split(directory / 'tiny_precomp', 'test')
    self.config = synthetic.tiny_config(directory)
    self.config.evaluation.update(settings)
    self.run = Run(self.config, build_vocabulary(self.split.captions), SmallMethod())
    self.mesh = data_mesh()
    inputs = ImageInputs(*self.split.features.rows(np.arange(self.split.num_images))), TextInputs(*self._tokens())
    variables = self.run.method.init(jax.random.key(0), *inputs)
    self.whole = np.asarray(self.run.method.apply(variables, *inputs)[0])
    self.variables = replicate(jax.device_get(variables), self.mesh)
    self.evaluator = Evaluator(self.run, self.mesh)

  def _tokens(self):
    tokenized = tokenize(self.split.captions, self.run.tokenizer)
    captions = [tokenized.caption(row)[0] for row in range(len(self.split.captions))]
    return pad_tokens(captions, 12, self.run.tokenizer)

  def scores(self, folder: pathlib.Path | None = None):
    return self.evaluator.scores(self.variables, self.split, folder=folder)


def matrix_of(scores) -> np.ndarray:
  return np.concatenate([block for _, block in scores.blocks(np.arange(scores.shape[0]), side='images')])


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--store', type=pathlib.Path)
  parser.add_argument('--coordinator')
  parser.add_argument('--num_processes', type=int)
  parser.add_argument('--process_id', type=int)
  arguments = parser.parse_args()
  with processes(arguments.coordinator, arguments.num_processes, arguments.process_id):
    matrix = matrix_of(World(arguments.data).scores(arguments.store))
    np.save(arguments.output / f'{jax.process_index()}.npy', matrix)


if __name__ == '__main__':
  main()
