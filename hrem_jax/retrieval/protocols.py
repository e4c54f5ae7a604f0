"""Evaluation protocols: which images and texts are ranked together, and how the figures are printed (METHOD section 6).

`all` ranks the whole set. The two COCO protocols read the same 5,000 images and 25,000 captions of `testall`: `coco_5k`
ranks them together, `coco_1k` in five folds of 1,000 consecutive images whose figures are averaged.

An ensemble (Full* of the paper) needs no protocol of its own: see `hrem_jax.retrieval.scores.mean_scores`.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from hrem_jax.errors import UserError
from hrem_jax.ops.ranking import TieRule, check_owner, retrieval_metrics
from hrem_jax.ops.streamed_ranking import DEFAULT_CHUNK
from hrem_jax.retrieval.scores import Scores

PROTOCOLS = ('all', 'coco_5k', 'coco_1k', 'coco')
COCO_IMAGES, COCO_TEXTS_PER_IMAGE, COCO_FOLDS = 5000, 5, 5
Metrics = dict[str, float]

_TITLES = {'': '', 'coco_1k/': 'COCO 1K (mean of five folds)', 'coco_5k/': 'COCO 5K'}
_COLUMNS = (('r1', 'R@1'), ('r5', 'R@5'), ('r10', 'R@10'), ('median_rank', 'medR'), ('mean_rank', 'meanR'))
JUDGED = {  # what `hrem_jax.retrieval.split_protocols` adds: a title and the figures of each direction
  'cxc/': ('CxC', (('r1', 'R@1'), ('r5', 'R@5'), ('r10', 'R@10'))),
  'eccv/': ('ECCV Caption', (('r1', 'R@1'), ('r_precision', 'R-P'), ('map_at_r', 'mAP@R'))),
  'pm/': ('Plausible matches', (('r_precision', 'R-P'),)),
}
_DIRECTIONS = (('i2t', 'Image to text:'), ('t2i', 'Text to image:'))


def protocol_metrics(
  scores: Scores,
  owner: Int[np.ndarray, 't'],
  *,
  protocol: str = 'all',
  ties: TieRule = 'expected',
  chunk: int = DEFAULT_CHUNK,
) -> Metrics:
  """Recall metrics of scores.

  Args:
    scores: Of every image with every text.
    owner: Row of each text's image, in any order. With `all`, any number of texts per image; an image without a text
      asks no question but stays a candidate.
    protocol: `all`, `coco_5k`, `coco_1k`, or `coco` for both COCO protocols.
    ties: `expected`, `pessimistic` or `optimistic`.
    chunk: Images per block of scores; memory grows with it, results differ by rounding at most.

  Returns:
    `i2t/r1`, `i2t/r5`, `i2t/r10`, `i2t/median_rank`, `i2t/mean_rank`, the same under `t2i/`, and `rsum`. `coco_1k` adds
    `fold_0/rsum` ... `fold_4/rsum`. `coco` returns the keys of both, under `coco_1k/` and `coco_5k/`.

  Raises:
    UserError: The protocol is unknown, or the set is not the one that it is defined on.
    FloatingPointError: A score is NaN or infinite.
    ValueError: Shapes that don't fit each other.
  """
  owner, num_images = np.asarray(owner), scores.shape[0]
  check_protocol(protocol, num_images, owner)
  protocols = {
    'all': lambda rank: rank(slice(None)),
    'coco_5k': lambda rank: rank(slice(None)),
    'coco_1k': _mean_of_folds,
    'coco': lambda rank: _under('coco_1k/', _mean_of_folds(rank)) | _under('coco_5k/', rank(slice(None))),
  }

  def rank(rows: slice) -> Metrics:
    start, stop, _ = rows.indices(num_images)
    # Nothing to select in the whole set: a mask would copy the texts, and hide an owner that is no row.
    chosen = slice(None) if rows == slice(None) else (owner >= start) & (owner < stop)
    ranks = scores.part(rows, chosen).ranks(owner[chosen] - start, chunk=chunk)
    return retrieval_metrics(ranks, ties=ties)

  return protocols[protocol](rank)


def _mean_of_folds(rank: Callable[[slice], Metrics]) -> Metrics:
  """Every figure, medians and mean ranks included, averaged over the five folds; each fold's rSum beside them."""
  size = COCO_IMAGES // COCO_FOLDS
  folds = [rank(slice(start, start + size)) for start in range(0, COCO_IMAGES, size)]
  mean = {key: float(np.mean([fold[key] for fold in folds])) for key in folds[0]}
  return mean | {f'fold_{index}/rsum': fold['rsum'] for index, fold in enumerate(folds)}


def _under(prefix: str, metrics: Metrics) -> Metrics:
  return {prefix + key: value for key, value in metrics.items()}


def check_protocol(protocol: str, num_images: int, owner: Int[np.ndarray, 't']) -> None:
  """Raises UserError where there is no such protocol, or it is COCO's and these aren't 5,000 images of five texts."""
  if protocol not in PROTOCOLS:
    raise UserError(f'protocol must be one of {", ".join(PROTOCOLS)}, found {protocol!r}')
  if protocol == 'all':
    return
  expected = f'{COCO_IMAGES} images with {COCO_TEXTS_PER_IMAGE} captions each'
  wants = f'protocol {protocol!r} is defined on the COCO test set of {expected}'
  if num_images != COCO_IMAGES or len(owner) != COCO_IMAGES * COCO_TEXTS_PER_IMAGE:
    raise UserError(f"{wants}, found {num_images} images and {len(owner)} captions; use protocol 'all'")
  counts = np.bincount(check_owner(owner, num_images, len(owner)), minlength=num_images)
  if (counts != COCO_TEXTS_PER_IMAGE).any():
    odd = int(np.flatnonzero(counts != COCO_TEXTS_PER_IMAGE)[0])
    raise UserError(f"{wants}, found {counts[odd]} captions for image {odd}; use protocol 'all'")


def format_table(metrics: Metrics, chance: Metrics | None = None, zero_shot: Metrics | None = None) -> str:
  """The lines that people grep, figures aligned under their names.

  Args:
    metrics: What `protocol_metrics` returned, for any protocol.
    chance: The same of a model that scores every pair alike: its rSum stands below that of the model.
    zero_shot: Of the pretrained encoders that the model began with: a line below each of the model.

  Returns:
    A heading per protocol where there are two, then `Image to text:`, `Text to image:` and `rSum:`; no final newline.
  """
  lines = []
  for prefix, title in _TITLES.items():
    if f'{prefix}rsum' not in metrics:
      continue
    lines += [title] if title else []
    lines.append(' ' * 14 + ''.join(f'{name:>8}' for _, name in _COLUMNS))
    kinds = [('', metrics), *([('zero-shot:', zero_shot)] if zero_shot else [])]
    for direction, label in _DIRECTIONS:
      for name, values in kinds:
        figures = ''.join(f'{values[f"{prefix}{direction}/{key}"]:8.1f}' for key, _ in _COLUMNS)
        lines.append(f'{name or label:14}{figures}')
    lines += [f'{name or "rSum:":14}{values[f"{prefix}rsum"]:8.1f}' for name, values in kinds]
    lines += [f'{"by chance:":14}{chance[f"{prefix}rsum"]:8.1f}'] if chance else []
    folds = [f'{metrics[key]:8.1f}' for index in range(COCO_FOLDS) if (key := f'{prefix}fold_{index}/rsum') in metrics]
    lines += ['rSum of folds:' + ''.join(folds)] if folds else []
  return '\n'.join([*lines, *_judged_lines(metrics, chance, zero_shot)])


def _judged_lines(metrics: Metrics, chance: Metrics | None, zero_shot: Metrics | None) -> list[str]:
  lines = []
  for prefix, (title, columns) in JUDGED.items():
    if f'{prefix}i2t/{columns[0][0]}' not in metrics:
      continue
    lines += [title, ' ' * 14 + ''.join(f'{name:>8}' for _, name in columns)]
    for direction, label in _DIRECTIONS:
      for name, values in ((label, metrics), ('zero-shot:', zero_shot), ('by chance:', chance)):
        figures = ''.join(f'{values[f"{prefix}{direction}/{key}"]:8.1f}' for key, _ in columns) if values else ''
        lines += [f'{name:14}{figures}'] if figures else []
  return lines
