"""Everything that a report says, before it is drawn."""

import dataclasses
import pathlib

from hrem_jax.data.precomputed import Split
from hrem_jax.errors import UserError
from hrem_jax.files import read_json_object
from hrem_jax.report.answers import Answer, answers, choose_pairs
from hrem_jax.report.batch_view import BatchView, batch_view
from hrem_jax.report.examples import Examples, choose_examples
from hrem_jax.retrieval.checkpoint_folder import CHECKPOINTS
from hrem_jax.retrieval.evaluation import RESULTS_FILE, are_metrics, average, chance, score_member, zero_shot
from hrem_jax.retrieval.run import Run, load_best
from hrem_jax.training.progress import read_metrics
from hrem_jax.training.state import count_parameters


@dataclasses.dataclass(frozen=True)
class Findings:
  """Everything that the page says."""

  name: str
  run: Run
  split: Split  # the test split
  step: int  # of the checkpoint
  is_selected: bool  # False: the newest, because none was evaluated
  metrics: dict[str, float]
  chance: dict[str, float]  # of a model that scores every pair alike
  zero_shot: dict[str, float] | None  # of the pretrained towers that it began with; None: with none
  text_to_image: Examples
  image_to_text: Examples
  answers: tuple[Answer, ...]  # of regions to words
  batch: BatchView | None  # None: no graph
  parameters: dict[str, int]
  reports: list[dict]  # of metrics.jsonl
  recorded: dict | None  # results.json


def gather(workdir: pathlib.Path, *, data: str | pathlib.Path | None = None) -> Findings:
  """Scores the test split with the best checkpoint and reads what the run left behind."""
  loaded = load_best(workdir)
  _, variables, *_ = loaded
  member = score_member(workdir, loaded, data=data)
  text_to_image, image_to_text = choose_examples(member.scores, member.split.owner)
  pairs = choose_pairs(text_to_image, member.split.owner)
  return Findings(
    name=workdir.resolve().name,
    run=member.run,
    split=member.split,
    step=member.step,
    is_selected=(workdir / CHECKPOINTS / str(member.step) / 'metrics').is_dir(),
    metrics=average([member]),
    chance=chance(member),
    zero_shot=zero_shot(member),
    text_to_image=text_to_image,
    image_to_text=image_to_text,
    answers=answers(member.run, variables, member.split, pairs),
    batch=batch_view(member.run, variables, member.split),
    parameters=count_parameters(member.parameters),
    reports=read_metrics(workdir),
    recorded=_recorded(workdir),
  )


def _recorded(workdir: pathlib.Path) -> dict | None:
  """`results.json`, if it is there and whole."""
  try:
    recorded = read_json_object(workdir / RESULTS_FILE)
  except UserError:
    return None
  return recorded if are_metrics(recorded.get('metrics')) else None
