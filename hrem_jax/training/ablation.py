"""Variants times seeds, one training after the other, and the table of what came out (METHOD section 7)."""

import math
import operator
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import ml_collections

from hrem_jax import configuration
from hrem_jax.errors import UserError
from hrem_jax.files import read_json_object, read_text, to_json, write_text
from hrem_jax.methods.registry import entry_of, from_json, validate
from hrem_jax.methods.variants import describe, with_variant
from hrem_jax.retrieval.checkpoint_folder import checkpoint_folder
from hrem_jax.retrieval.evaluation import RESULTS_FILE, are_metrics, evaluate_ensemble
from hrem_jax.training import loop
from hrem_jax.training.setup import plan

CONFIG_FILE, TABLE_FILE = 'config.json', 'table'
READ = (
  *('data.source', 'data.directory', 'data.name', 'data.sampler', 'data.min_word_count', 'evaluation'),
  *('model.region_size', 'model.text', 'model.weights', 'model.vocabulary', 'model.word_vectors', 'model.bigru'),
  *('model.start', 'model.image', 'model.image_weights', 'data.length_buckets'),
  'training.batch_size',
)  # what decides which files are read, and whether they fit
COLUMNS = {'i2t/r1': 'i2t R@1', 'i2t/r5': 'R@5', 't2i/r1': 't2i R@1', 't2i/r5': 'R@5', 'rsum': 'rSum'}


class Row(NamedTuple):
  """The test figures of one variant over its seeds."""

  variant: str
  seeds: list[int]
  figures: dict[str, list[float]]  # of COLUMNS, one value per seed
  selected_on: str  # the split that chose the checkpoints

  def mean(self, key: str) -> float:
    return statistics.fmean(self.figures[key])

  def spread(self, key: str) -> float | None:
    """Standard deviation over the seeds; one seed has none."""
    return statistics.stdev(self.figures[key]) if len(self.seeds) > 1 else None


def ablate(
  config: ml_collections.ConfigDict, variants: Sequence[str], *, num_seeds: int, output: pathlib.Path
) -> list[Row]:
  """Trains every variant with every seed and writes `table.md` and `table.json`, anew after each run.

  Called again it goes on where it was: what is finished is only read.

  Args:
    config: What the variants depart from; its seed is the first one.
    variants: Names and settings as in `hrem_jax.methods.variants`; of those that are means, the members, too.
    num_seeds: How often each is trained.
    output: Gets `VARIANT/seed_N/`, a workdir each.

  Raises:
    UserError: A variant is unknown, a setting wrong, data for what is to be trained is missing, or `output` was begun
      with another configuration; nothing was written.
  """
  if not variants or len(set(variants)) < len(variants) or num_seeds < 1:
    raise UserError(f'expected different variants and at least one seed, found {list(variants)} and {num_seeds} seeds')
  members = {name: found.members for name, found in entry_of(config.method).variants.items() if found.members}
  configs = {name: with_variant(config, name) for name in variants if name not in members}
  for changed in configs.values():
    validate(changed, num_devices=jax.device_count())
  for name in members.keys() & set(variants):
    if not configs.keys() >= set(members[name]):
      raise UserError(f'variant {name!r} is the mean of {" and ".join(members[name])}: name them too')
  seeds = range(config.training.seed, config.training.seed + num_seeds)
  runs = [(name, seed, output / name / f'seed_{seed}') for seed in seeds for name in variants]
  for _, _, workdir in runs:
    checkpoint_folder(workdir)
  waiting = {name for name, _, workdir in runs if not (workdir / RESULTS_FILE).is_file()}
  _check_files(changed for name, changed in configs.items() if name in waiting)
  _begin(config, output)
  for number, (name, seed, workdir) in enumerate(runs, start=1):
    if not (workdir / RESULTS_FILE).is_file():
      print(f'[{number}/{len(runs)}] {name}, seed {seed}', flush=True)
      if name in members:
        workdirs = [output / member / f'seed_{seed}' for member in members[name]]
        evaluate_ensemble(workdirs, output=workdir / RESULTS_FILE)
      else:
        _train(configs[name], seed, workdir)
    rows = read_rows(output, variants, seeds)
    _write(rows, output, config.method)
  return rows


def _check_files(configs: Iterable[ml_collections.ConfigDict]) -> None:
  """Opens everything that the trainings will read; variants differ in it rarely."""
  for config in {str(operator.attrgetter(*READ)(config)): config for config in configs}.values():
    plan(config)


def _begin(config: ml_collections.ConfigDict, output: pathlib.Path) -> None:
  """Keeps the configuration, or compares it with that of the first call."""
  path = output / CONFIG_FILE
  if not path.is_file():
    write_text(path, configuration.to_json(config))
    return
  begun = from_json(read_text(path), source=str(path))
  changed = configuration.differences(begun, config)
  if begun.training.num_epochs != config.training.num_epochs:  # more epochs would be another budget
    changed.append(f'training.num_epochs {begun.training.num_epochs} -> {config.training.num_epochs}')
  if changed:
    raise UserError(f'{output}: was begun with another configuration ({"; ".join(changed)}); take another --output')


def _train(config: ml_collections.ConfigDict, seed: int, workdir: pathlib.Path) -> None:
  config = config.copy_and_resolve_references()
  config.training.seed = seed
  loop.train(config, workdir)
  jax.clear_caches()  # the next variant is another program


def read_rows(output: pathlib.Path, variants: Sequence[str], seeds: Sequence[int]) -> list[Row]:
  """What is finished of the variants; those without a finished run are left out."""
  rows = []
  for name in variants:
    paths = {seed: output / name / f'seed_{seed}' / RESULTS_FILE for seed in seeds}
    done = {seed: _read_results(path) for seed, path in paths.items() if path.is_file()}
    if done:
      first = next(iter(done.values()))
      figures = {key: [results['metrics'][_prefix(results) + key] for results in done.values()] for key in COLUMNS}
      rows.append(Row(name, list(done), figures, first.get('members', [first])[0]['select_on']))
  return rows


def _read_results(path: pathlib.Path) -> dict:
  results = read_json_object(path)
  members = results.get('members') or [results]
  is_selected = isinstance(members, list) and all(isinstance(m, dict) and 'select_on' in m for m in members)
  if not is_selected or not are_metrics(results.get('metrics')):
    raise UserError(f'{path}: no metrics in it, expected are the results of a run; without the file it is made anew')
  missing = [key for key in COLUMNS if _prefix(results) + key not in results['metrics']]
  if missing:
    raise UserError(f'{path}: no {missing[0]} among the metrics; without the file it is made anew')
  return results


def _prefix(results: dict) -> str:
  """Of the keys of the metrics: by MS-COCO's protocol there are several of each."""
  return '' if 'rsum' in results['metrics'] else 'coco_1k/'


def _write(rows: list[Row], output: pathlib.Path, method: str) -> None:
  if jax.process_index() == 0:
    records = [
      {
        'variant': row.variant,
        'seeds': row.seeds,
        'selected_on': row.selected_on,
        **{key: {'mean': row.mean(key), 'spread': row.spread(key), 'values': row.figures[key]} for key in COLUMNS},
      }
      for row in rows
    ]
    write_text(output / f'{TABLE_FILE}.json', to_json(records))
    write_text(output / f'{TABLE_FILE}.md', format_rows(rows, method))


def difference(row: Row, reference: Row) -> tuple[float, float | None]:
  """rSum against a reference: the mean difference, and twice its standard error where both have a spread."""
  spreads = [(each.spread('rsum'), len(each.seeds)) for each in (row, reference)]
  noise = None
  if all(spread is not None for spread, _ in spreads):
    noise = 2 * math.sqrt(sum(spread**2 / count for spread, count in spreads))
  return row.mean('rsum') - reference.mean('rsum'), noise


def format_rows(rows: list[Row], method: str) -> str:
  """A Markdown table: mean and standard deviation, rSum against the first row, and the paper's figures."""
  heads = ['variant', 'seeds', *COLUMNS.values(), f'rSum - {rows[0].variant}', "paper's R@1 R@5 R@1 R@5"]
  lines = [heads, ['---'] * len(heads)]
  known = entry_of(method).variants
  for row in rows:
    cells = [
      f'{describe(row.variant, known)} (`{row.variant}`)',
      str(len(row.seeds)),
      *(_figure(row, key) for key in COLUMNS),
    ]
    paper = known[row.variant].paper if row.variant in known else ()
    lines.append([*cells, '' if row is rows[0] else _difference(row, rows[0]), ' '.join(map(str, paper))])
  table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  note = (
    f'Mean and standard deviation over the seeds. Test split, checkpoints selected on {rows[0].selected_on}. '
    'Differences: mean, and in brackets twice the standard error; what is smaller than that is within noise. '
    "The paper's figures: Flickr30K, as it prints them."
  )
  return f'{table}\n\n{note}\n'


def _figure(row: Row, key: str) -> str:
  spread = row.spread(key)
  return f'{row.mean(key):.1f}' + ('' if spread is None else f' ± {spread:.1f}')


def _difference(row: Row, reference: Row) -> str:
  mean, noise = difference(row, reference)
  if noise is None:
    return f'{mean:+.1f}'
  return f'{mean:+.1f} [{noise:.1f}]' + (' within noise' if abs(mean) <= noise else '')
