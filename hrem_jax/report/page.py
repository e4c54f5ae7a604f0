"""`report.html`: what a person looks at after a training. One file, no scripts, nothing from outside."""

import pathlib
from html import escape

import jax
import ml_collections
import numpy as np

from hrem_jax.data.boxes import read_boxes
from hrem_jax.data.precomputed import data_folder
from hrem_jax.data.sources import open_split
from hrem_jax.errors import UserError
from hrem_jax.files import write_text
from hrem_jax.methods.registry import title_of
from hrem_jax.report.answers_page import answers_section
from hrem_jax.report.batch_page import batch_section
from hrem_jax.report.curves import training_curves
from hrem_jax.report.findings import Findings, gather
from hrem_jax.report.gallery import Gallery
from hrem_jax.report.pictures import Pictures
from hrem_jax.report.tables import configuration_table, facts, results_table
from hrem_jax.retrieval.evaluation import is_selected_on_reported

FILE_NAME, ATTRIBUTION = 'report.html', 'ATTRIBUTION.txt'

_TIES = {
  'expected': 'the exact mean over all orders of equal scores',
  'pessimistic': 'wrong answers go before right ones of the same score',
  'optimistic': 'right answers go before wrong ones of the same score',
}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # captions are somebody else's text


def write_report(
  workdir: pathlib.Path, output: pathlib.Path | None = None, *, data: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Writes the report of a run; with several processes all must call it, and the first one writes.

  Args:
    workdir: Of a run that has at least one checkpoint.
    output: Where to; None is `workdir/report.html`. A file that stands there is replaced.
    data: Takes the place of the run's `config.data.directory`.

  Returns:
    The path of the page.

  Raises:
    UserError: `workdir` is not one that training wrote, or its test split is missing or of another feature size.
    FloatingPointError: The model gives a score that is NaN or infinite.
  """
  workdir = pathlib.Path(workdir)
  output = workdir / FILE_NAME if output is None else pathlib.Path(output)
  findings = gather(workdir, data=data)
  if jax.process_index() == 0:
    write_text(output, render(findings))
  return output


def render(findings: Findings) -> str:
  """The page."""
  folder = data_folder(findings.run.config.data)
  pictures = Pictures(folder)
  gallery = Gallery(findings.split, pictures)
  config = findings.run.config
  curves = training_curves(
    findings.reports,
    select_on=config.evaluation.select_on,
    best_step=findings.step,
  )
  sections = [
    _header(findings),
    _section(f'Results on {findings.split.name}', _results(findings)),
    _section('Pictures found for captions', gallery.pictures_for_captions(findings.text_to_image)),
    _section('Captions found for pictures', gallery.captions_for_pictures(findings.image_to_text)),
    _section('Which regions answer which words', _answers(findings, pictures, folder)),
    _section('What a batch looks like to the graph', batch_section(findings.batch, findings.split, pictures)),
    _left_out(pictures),
    _section('Training', curves),
    _section('Data and model', _about(findings)),
    _attribution(folder),
  ]
  style = (pathlib.Path(__file__).parent / 'style.css').read_text('utf-8')
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    f'<title>{escape(findings.name)} · hrem_jax</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n'
    f'{"".join(sections)}</main>\n</body>\n</html>\n'
  )


def _answers(findings: Findings, pictures: Pictures, folder: pathlib.Path) -> str:
  """With boxes where they are there and whole; a table stands for them otherwise."""
  split, boxes, problem = findings.split, None, ''
  rows = np.array([answer.pair.image for answer in findings.answers], int)
  if len(rows):
    try:
      mask = split.features.rows(rows)[1]
      boxes = read_boxes(folder / f'{split.name}_boxes.npy', mask, rows, num_images=split.num_images)
    except UserError as error:
      problem = str(error)
  return answers_section(findings.answers, split, pictures, boxes, problem)


def _section(title: str, content: str) -> str:
  return f'<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n'


def _header(findings: Findings) -> str:
  config = findings.run.config
  encoder = {'bert': 'BERT', 'bigru': 'a BiGRU', 'tower': 'the text tower of its encoder'}[config.model.text]
  sentence = (
    f'An image-text matching model ({title_of(config)} with {encoder}) trained on {config.data.name}: '
    'it finds pictures for a caption, and captions for a picture.'
  )
  return (
    f'<header class="title"><p class="eyebrow">hrem_jax report</p><h1>{escape(findings.name)}</h1>'
    f'<p class="lede">{escape(sentence)}</p></header>\n'
  )


def _results(findings: Findings) -> str:
  """Which checkpoint, the table, and how to read it."""
  split, config = findings.split, findings.run.config.evaluation
  size = f'{split.num_images:,} images and {len(split.captions):,} captions'
  begun = '' if findings.zero_shot is None else 'Zero-shot: the pretrained encoders, before this training. '
  about = (
    'R@K: percent of queries with a right answer among the first K, higher is better. rSum: the sum of the six, at '
    'most 600. medR, meanR: median and mean rank of the best right answer; 1 is the first, lower is better. '
    f'{begun}Chance: a model that scores every pair alike. Equal scores ({config.ties}): {_TIES[config.ties]}.'
  )
  notes = ''.join(f'<p class="note"><b>Note.</b> {escape(note)}</p>' for note in _warnings(findings))
  return (
    f'<p>{escape(_checkpoint(findings))} Ranked are {size}.</p>{notes}'
    f'{results_table(findings.metrics, findings.chance, findings.zero_shot)}<p class="quiet">{escape(about)}</p>'
  )


def _checkpoint(findings: Findings) -> str:
  """Which checkpoint it is, and why."""
  select_on = findings.run.config.evaluation.select_on
  if not findings.is_selected:
    return f'The newest checkpoint (step {findings.step:,}): none was evaluated on {select_on}, so none was selected.'
  scores = [
    report['rsum']
    for report in findings.reports
    if (report.get('kind'), report['step']) == (select_on, findings.step) and 'rsum' in report
  ]
  score = f' ({scores[0]:.1f})' if scores else ''
  return f'The checkpoint of step {findings.step:,}, selected by its rSum on {select_on}{score}.'


def _warnings(findings: Findings) -> list[str]:
  """What a reader must know before believing the table."""
  config, notes = findings.run.config.evaluation, []
  if is_selected_on_reported(config):
    notes.append(
      f'The checkpoint was selected on {config.select_on}, the split that is reported: the figures are higher than '
      'what to expect of new data. Select on dev for an honest number.'
    )
  recorded = findings.recorded
  if recorded and recorded['metrics'] != findings.metrics and not _agree(recorded['metrics'], findings.metrics):
    notes.append(
      'results.json holds other figures: it was written for another checkpoint, split or data set than this page.'
    )
  return notes


def _agree(ours: dict, theirs: dict) -> bool:
  """Whether the same figures would be printed, up to a tie that falls differently on another machine."""
  return ours.keys() == theirs.keys() and all(abs(ours[key] - theirs[key]) < 0.5 for key in ours)


def _about(findings: Findings) -> str:
  """Data, model and training in figures; the configuration, folded."""
  config = findings.run.config
  parts = ', '.join(f'{name.replace("_", " ")} {count:,}' for name, count in findings.parameters.items())
  steps = max((report['step'] for report in findings.reports), default=findings.step)
  splits = ('train', config.evaluation.select_on, findings.split.name)
  pairs = [
    ('Data set', config.data.name),
    *[(name, _size(config.data, name)) for name in dict.fromkeys(splits)],
    ('Parameters', f'{sum(findings.parameters.values()):,}: {parts}'),
    ('Trained', f'{steps:,} steps, batch size {config.training.batch_size:,}, seed {config.training.seed}'),
  ]
  return (
    f'{facts(pairs)}<details><summary>Configuration</summary><p class="quiet">• marks what differs from the '
    f'defaults.</p>{configuration_table(config)}</details>'
  )


def _size(data: ml_collections.ConfigDict, name: str) -> str:
  """Of a split; a run can be looked at where its training data is not."""
  try:
    split = open_split(data, name)
  except UserError:
    return 'not in this folder'
  return f'{split.num_images:,} images, {len(split.captions):,} captions'


def _left_out(pictures: Pictures) -> str:
  """The files that would have been shown; asked last, when all have been looked for."""
  if not pictures.problems:
    return ''
  shown = [f'<li>{escape(path.name)}: {escape(reason)}</li>' for path, reason in list(pictures.problems.items())[:10]]
  more = f'<li>and {len(pictures.problems) - 10} more</li>' if len(pictures.problems) > 10 else ''
  return _section('Pictures that cannot be read', f'<ul>{"".join(shown)}{more}</ul>')


def _attribution(folder: pathlib.Path) -> str:
  """Whose pictures these are, where the data set says so."""
  path = folder / ATTRIBUTION
  if not path.is_file():
    return ''
  return _section('Attribution', f'<p class="attribution">{escape(path.read_text("utf-8", errors="replace"))}</p>')
