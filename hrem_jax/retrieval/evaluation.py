"""Trained runs on their test split: one, or the mean of several (Full* of METHOD section 5)."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import ml_collections
from jax.sharding import Mesh

from hrem_jax.data.precomputed import Split
from hrem_jax.errors import UserError
from hrem_jax.files import to_json, write_text
from hrem_jax.methods.registry import validate
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.protocols import Metrics, format_table
from hrem_jax.retrieval.run import Run, load_best, load_test_split, skipped_updates
from hrem_jax.retrieval.scores import Scores, mean_scores
from hrem_jax.retrieval.split_protocols import chance_on_split, check_split, evaluate_split
from hrem_jax.retrieval.zero_shot import zero_shot_variables

RESULTS_FILE, SCORES_FOLDER = 'results.json', 'scores'


class Member(NamedTuple):
  """A run with the scores of its test split."""

  workdir: pathlib.Path
  run: Run
  step: int  # of the chosen checkpoint
  split: Split
  scores: Scores
  parameters: dict  # their shapes
  zero_shot: Scores | None = None  # of the pretrained towers; None: the run did not begin with such
  skipped_updates: int = 0  # of those up to the chosen checkpoint


def load_member(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None = None, *, data: str | pathlib.Path | None = None
) -> Member:
  """Scores the test split with the best checkpoint of a workdir.

  Args:
    workdir: Of a run.
    config: Its sections `data` and `evaluation` take the place of those of the training; None keeps them. On which
      split the checkpoint was selected stays what it was: that is done, and every report says it.
    data: Takes the place of `config.data.directory`.

  Raises:
    UserError: No such run or data, or features of another size than it was trained on.
  """
  return score_member(workdir, load_best(workdir), config, data=data)


def score_member(
  workdir: pathlib.Path,
  loaded: tuple[Run, dict, int, Mesh],
  config: ml_collections.ConfigDict | None = None,
  *,
  data: str | pathlib.Path | None = None,
) -> Member:
  """As `load_member`, of what `load_best` has loaded: for who needs the variables, too."""
  run, variables, step, mesh = loaded
  if config is not None:
    validate(config, num_devices=jax.device_count())
    selected_on = run.config.evaluation.select_on
    run.config.update({name: config[name] for name in ('data', 'evaluation')})
    run.config.evaluation.select_on = selected_on
  if data is not None:
    run.config.data.directory = str(data)
  split = load_test_split(run.config)
  split.check_region_size(run.config.model.region_size, f'{workdir} was trained on ')
  split.check_inputs(run.config.model)
  check_split(split, run.config)
  shapes, evaluator = jax.eval_shape(lambda tree: tree, variables['params']), Evaluator(run, mesh)
  scores, zero_shot = evaluator.scores(variables, split, folder=workdir / SCORES_FOLDER), None
  if run.config.model.start == 'zero_shot':
    before = zero_shot_variables(run, variables, mesh)
    zero_shot = before and evaluator.scores(before, split)
  return Member(workdir, run, step, split, scores, shapes, zero_shot, skipped_updates(workdir, step))


def evaluate_best(
  workdir: pathlib.Path, config: ml_collections.ConfigDict | None = None, *, data: str | pathlib.Path | None = None
) -> tuple[int, Metrics]:
  """The test split with the best checkpoint of a workdir: printed, and written to `results.json`.

  Args:
    workdir, config, data: As in `load_member`.

  Returns:
    The step of the checkpoint, and the metrics.
  """
  member = load_member(workdir, config, data=data)
  metrics = average([member])
  guessed, before = chance(member), zero_shot(member)
  results = _about(member) | {'metrics': metrics, 'chance': guessed} | ({'zero_shot': before} if before else {})
  if jax.process_index() == 0:
    write_text(workdir / RESULTS_FILE, to_json(results))
    print(f'{describe(member)}\n{format_table(metrics, guessed, before)}', flush=True)
  return member.step, metrics


def evaluate_ensemble(
  workdirs: Sequence[pathlib.Path],
  config: ml_collections.ConfigDict | None = None,
  *,
  data: str | pathlib.Path | None = None,
  output: pathlib.Path | None = None,
) -> Metrics:
  """Several runs, each and the mean of their similarity matrices: printed, and written to `output`.

  The members may differ in everything but the test split: same images, same captions, same order.

  Args:
    workdirs: Of at least two runs.
    config: As in `load_member`, for every member; without it the first member's section `evaluation` holds for all.
    data: As in `load_member`, for every member.
    output: A JSON file.

  Returns:
    The metrics of the ensemble.

  Raises:
    UserError: A workdir is none, or the members were made for different test splits.
  """
  members = [load_member(workdir, config, data=data) for workdir in workdirs]
  for member in members[1:]:
    _check_same_data(members[0], member)
  metrics, guessed = average(members), chance(members[0])
  reports = []
  for member in members:
    alone = {'workdir': str(member.workdir), 'metrics': _metrics(members[0], member.scores)}
    before = member.zero_shot and {'zero_shot': _metrics(members[0], member.zero_shot)}
    reports.append(_about(member) | alone | (before or {}))
  if jax.process_index() == 0:
    for member, report in zip(members, reports, strict=True):
      table = format_table(report['metrics'], zero_shot=report.get('zero_shot'))
      print(f'{member.workdir}: {describe(member)}\n{table}', flush=True)
    print(f'the mean of {len(members)} similarity matrices\n{format_table(metrics, guessed)}', flush=True)
    if output is not None:
      results = {'members': reports, 'metrics': metrics, 'chance': guessed}
      write_text(output, to_json(results))
  return metrics


def average(members: Sequence[Member]) -> Metrics:
  """Metrics of the mean of the members' similarity matrices; of one member, its own."""
  return _metrics(members[0], mean_scores([member.scores for member in members]))


def is_selected_on_reported(config: ml_collections.ConfigDict) -> bool:
  """Whether the section `evaluation` chooses the checkpoint on the very split that it reports."""
  return config.select_on == 'test' or config.select_on == config.test_split


def are_metrics(found: object) -> bool:
  """Whether what a file holds can be metrics: finite numbers with names."""
  return isinstance(found, dict) and all(
    type(value) in (int, float) and abs(value) < math.inf for value in found.values()
  )


def describe(member: Member) -> str:
  """Which split, which checkpoint, how it was chosen."""
  config = member.run.config.evaluation
  line = f'{config.test_split} with the checkpoint of step {member.step}, selected on {config.select_on}'
  if member.skipped_updates:
    line += f' ({member.skipped_updates} of its {member.step} updates were skipped)'
  if is_selected_on_reported(config):
    line += ' (the split that is reported: figures are higher than on data that chose nothing)'
  return line


def _about(member: Member) -> dict:
  config = member.run.config
  evaluation = {key: config.evaluation[key] for key in ('select_on', 'protocol', 'ties')}
  about = {'step': member.step, 'skipped_updates': member.skipped_updates, 'split': config.evaluation.test_split}
  return {**about, **evaluation, 'seed': config.training.seed}


def _metrics(member: Member, scores: Scores) -> Metrics:
  """Of the split, by the protocol and the tie rule of `member`."""
  return evaluate_split(scores, member.split, member.run.config)


def zero_shot(member: Member) -> Metrics | None:
  """The same metrics of the pretrained towers alone, before any training; None where the run has none."""
  return None if member.zero_shot is None else _metrics(member, member.zero_shot)


def chance(member: Member) -> Metrics:
  """What guessing is worth on the split and by the protocol of `member`."""
  return chance_on_split(member.split, member.run.config)


def _check_same_data(first: Member, other: Member) -> None:
  """Raises UserError, naming the first difference."""
  for what, ours, theirs in (
    ('image', first.split.ids, other.split.ids),
    ('caption', first.split.captions, other.split.captions),
    ('owner of caption', first.split.owner.tolist(), other.split.owner.tolist()),
  ):
    if ours == theirs:
      continue
    both = f'{first.workdir} and {other.workdir} were not made for the same test split'
    if len(ours) != len(theirs):
      raise UserError(f'{both}: {len(ours)} and {len(theirs)} {what}s')
    odd = next(index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    raise UserError(f'{both}: {what} {odd} is {ours[odd]!r} in the first, {theirs[odd]!r} in the second')
