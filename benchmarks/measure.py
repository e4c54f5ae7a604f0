"""What the benchmarks share: figures against targets, alternating timings, and a batch of the paper's size."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jaxtyping import Int

from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.data.packing import balanced_order, lay_out, pack_rows, usual_rows
from hrem_jax.methods.registry import build_method, init_variables
from hrem_jax.sharding import data_mesh
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import TrainState, create_state
from hrem_jax.training.step import jit_train_step

MAX_WORDS, NUM_REGIONS = 40, 36


class Figure(NamedTuple):
  """A measured number and, where one was promised, its bound."""

  name: str
  value: float
  unit: str = ''
  at_most: float | None = None
  at_least: float | None = None
  note: str = ''

  @property
  def target(self) -> str | None:
    bounds = (('at most', self.at_most), ('at least', self.at_least))
    return next((f'{word} {bound:g} {self.unit}'.strip() for word, bound in bounds if bound is not None), None)

  @property
  def met(self) -> bool | None:
    if self.target is None:
      return None
    return bool(self.value <= self.at_most if self.at_most is not None else self.value >= self.at_least)


def show(title: str, figures: Iterable[Figure]) -> None:
  """A table, row by row as it is measured, and at the end one line of JSON: `[{name, figure, target, met}]`."""
  load = os.getloadavg()[0]
  print(f'{title}: JAX {jax.__version__}, {os.cpu_count()} cores, load {load:.1f}', flush=True)
  results = []
  for figure in figures:
    value = float(f'{figure.value:.4g}')
    results.append(dict(name=f'{title}, {figure.name}', figure=value, target=figure.target, met=figure.met))
    verdict = '' if figure.target is None else f'{figure.target:<16}{"met" if figure.met else "MISSED"}'
    print(f'{figure.name:<52}{value:>10g} {figure.unit:<4}{verdict:<24}{figure.note}'.rstrip(), flush=True)
  print(json.dumps(results), flush=True)


def seconds(function: Callable[[], object]) -> float:
  started = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - started


def in_turns(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
  """Seconds of each function in each round, after a call of each that is not counted.

  In turns: what else the machine does meets all of them alike.
  """
  for function in functions.values():
    jax.block_until_ready(function())
  times = {name: [] for name in functions}
  for _ in range(rounds):
    for name, function in functions.items():
      times[name].append(seconds(function))
  return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
  """The median over the rounds of how many times longer `one` took than `other`."""
  return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def caption_lengths(count: int, rng: np.random.Generator) -> Int[np.ndarray, ' t']:
  """In tokens: 14.3 on average, with the tail of English captions; the first one is the longest, 40."""
  lengths = np.clip(rng.gamma(11.0, 1.3, count).round(), 5, MAX_WORDS).astype(int)
  lengths[0] = MAX_WORDS
  return lengths


def make_batch(config: ml_collections.ConfigDict, size: int, *, num_groups: int = 1) -> Batch:
  """Random regions and captions, packed as in a training."""
  rng = np.random.default_rng(0)
  lengths = caption_lengths(size, rng)
  lengths = lengths[balanced_order(lengths, num_groups)]
  mask = np.arange(MAX_WORDS) < lengths[:, None]
  tokens = np.where(mask, rng.integers(1, config.model.bert.vocab_size, mask.shape), 0).astype(np.int32)
  row_width = config.data.row_width
  min_rows = usual_rows(lengths, size, row_width, num_groups=num_groups)
  layout = lay_out(lengths, num_groups=num_groups, row_width=row_width, min_rows=min_rows)
  rows, row_mask, packing = pack_rows(tokens, mask, layout, pad=0)
  regions = rng.standard_normal((size, NUM_REGIONS, config.model.region_size), np.float32)
  ids = np.arange(size, dtype=np.int32)
  return Batch(ImageInputs(regions, np.ones((size, NUM_REGIONS), bool)), TextInputs(rows, row_mask, packing), ids)


def build_step(config: ml_collections.ConfigDict, *, graph: bool) -> tuple[Callable, Callable[[jax.Array], TrainState]]:
  """The jitted step on all devices, and what makes its first state from a key."""
  method = build_method(config)
  optimizer = make_optimizer(method, config, 1000)
  step_number = config.hrem.warmup_steps if graph else 0
  options = dict(phase=method.phase(step_number, 1000), active=optimizer.active(step_number))
  step = jit_train_step(data_mesh(), method=method, optimizer=optimizer, **options)
  return step, lambda rng: create_state(init_variables(method, config, rng), optimizer)
