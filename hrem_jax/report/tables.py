"""The figures of a report: the test table with chance beside it, facts, the configuration."""

from html import escape

import ml_collections

from hrem_jax.configuration import leaves
from hrem_jax.methods.registry import default_config
from hrem_jax.retrieval.protocols import JUDGED

_TITLES = {'': '', 'coco_1k/': 'COCO 1K, mean of five folds', 'coco_5k/': 'COCO 5K'}
_COLUMNS = (('r1', 'R@1'), ('r5', 'R@5'), ('r10', 'R@10'), ('median_rank', 'medR'), ('mean_rank', 'meanR'))
_DIRECTIONS = (('i2t', 'Image to text'), ('t2i', 'Text to image'))


Rows = tuple[tuple[str, str, dict[str, float]], ...]  # kind, name and figures of what stands under each row


def results_table(
  metrics: dict[str, float], chance: dict[str, float], zero_shot: dict[str, float] | None = None
) -> str:
  """The metrics of any protocol, and under each row what the start and guessing are worth.

  Args:
    metrics: What `hrem_jax.retrieval.split_protocols.evaluate_split` returned.
    chance: The same of a model that scores every pair alike.
    zero_shot: The same of the pretrained encoders that it began with, if it did.
  """
  others: Rows = (*((('start', 'zero-shot', zero_shot),) if zero_shot else ()), ('chance', 'by chance', chance))
  heads = ''.join(f'<th scope="col">{name}</th>' for _, name in _COLUMNS)
  parts = [_protocol(prefix, metrics, others) for prefix in _TITLES if f'{prefix}rsum' in metrics]
  return (
    f'<div class="scroll"><table class="results"><thead><tr><td></td>{heads}</tr></thead>{"".join(parts)}</table></div>'
    f'{_judged_tables(metrics, others)}'
  )


def _protocol(prefix: str, metrics: dict[str, float], others: Rows) -> str:
  title = _TITLES[prefix]
  rows = [f'<tr><th class="protocol" scope="rowgroup" colspan="6">{title}</th></tr>'] if title else []
  for direction, label in _DIRECTIONS:
    for kind, name, values in (('model', label, metrics), *others):
      cells = ''.join(f'<td>{values[f"{prefix}{direction}/{key}"]:.1f}</td>' for key, _ in _COLUMNS)
      rows.append(f'<tr class="{kind}"><th scope="row">{name}</th>{cells}</tr>')
  for kind, name, values in (('model rsum', 'rSum', metrics), *others):
    # Under the recalls, which it is the sum of.
    cells = f'<td colspan="3">{values[f"{prefix}rsum"]:.1f}</td><td colspan="2"></td>'
    rows.append(f'<tr class="{kind}"><th scope="row">{name}</th>{cells}</tr>')
  return f'<tbody>{"".join(rows)}</tbody>'


def _judged_tables(metrics: dict[str, float], others: Rows) -> str:
  """CxC, ECCV Caption and plausible matches, where they were measured: figures of their own."""
  tables = []
  for prefix, (title, columns) in JUDGED.items():
    if f'{prefix}i2t/{columns[0][0]}' not in metrics:
      continue
    rows = [f'<tr><th class="protocol" scope="rowgroup" colspan="{len(columns) + 1}">{title}</th></tr>']
    for direction, label in _DIRECTIONS:
      for kind, name, values in (('model', label, metrics), *others):
        cells = ''.join(f'<td>{values[f"{prefix}{direction}/{key}"]:.1f}</td>' for key, _ in columns)
        rows.append(f'<tr class="{kind}"><th scope="row">{name}</th>{cells}</tr>')
    heads = ''.join(f'<th scope="col">{name}</th>' for _, name in columns)
    head = f'<thead><tr><td></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
    tables.append(f'<div class="scroll"><table class="results">{head}</table></div>')
  return ''.join(tables)


def facts(pairs: list[tuple[str, str]]) -> str:
  """Names and what they are, as a list of definitions."""
  rows = ''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in pairs)
  return f'<dl class="facts">{rows}</dl>'


def configuration_table(config: ml_collections.ConfigDict) -> str:
  """Every key with its value; those that are not the default's are marked."""
  rows, defaults = [], leaves(default_config(config.method))
  for key, value in leaves(config).items():
    mark, kind = ('<b>•</b> ', ' class="differs"') if value != defaults.get(key) else ('', '')
    rows.append(f'<tr{kind}><th scope="row">{mark}{escape(key)}</th><td>{escape(repr(value))}</td></tr>')
  return f'<div class="scroll"><table class="configuration">{"".join(rows)}</table></div>'
