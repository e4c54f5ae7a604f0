"""COCO's 5K test set with more right answers than its own: CxC and ECCV Caption (docs/protocols.md).

CxC (Parekh et al., EACL 2021) had people rate more pairs; ECCV Caption (Chun et al., ECCV 2022) found most of the
missing ones for 1,261 images and 1,332 captions. Both come in ids of COCO with the package `eccv-caption`, of which
only the data files are read. A data set must say which of its captions is which annotation of COCO.
"""

import functools
import importlib.util
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from hrem_jax.errors import UserError
from hrem_jax.ops.ranking import TieRule, check_owner
from hrem_jax.ops.streamed_ranking import DEFAULT_CHUNK
from hrem_jax.retrieval.matches import both_directions, matches_of, precisions, recalls
from hrem_jax.retrieval.protocols import COCO_TEXTS_PER_IMAGE, Metrics, protocol_metrics
from hrem_jax.retrieval.scores import Scores

DIRECTIONS = {'i2t': 'image_to_caption', 't2i': 'caption_to_image'}


@functools.cache
def _data_folder() -> pathlib.Path:
  package = importlib.util.find_spec('eccv_caption')  # not imported: its data is what is needed
  if package is None:
    raise UserError(
      "evaluation by CxC and ECCV Caption needs the package eccv-caption: pip install 'hrem_jax[protocols]'"
    )
  return pathlib.Path(package.origin).parent / 'data'


@functools.cache
def coco_caption_ids() -> Int[np.ndarray, ' t']:
  """The 25,000 captions of COCO's test set in Karpathy's order, five in a row for each image."""
  return np.load(_data_folder() / 'coco_test_ids.npy')


@functools.cache
def judgements(name: str, direction: str) -> dict[int, list[int]]:
  """The right answers by `original`, `cxc` or `eccv` in the direction `i2t` or `t2i`, in COCO's ids."""
  content = json.loads((_data_folder() / f'{name}_{DIRECTIONS[direction]}.json').read_text('utf-8'))
  return {int(query): [int(answer) for answer in answers] for query, answers in content.items()}


@functools.cache
def coco_image_ids() -> Int[np.ndarray, ' i']:
  """The 5,000 images, in Karpathy's order."""
  owners = judgements('original', 't2i')
  return np.array([owners[caption][0] for caption in coco_caption_ids()[::COCO_TEXTS_PER_IMAGE].tolist()])


def judged_metrics(
  scores: Scores,
  owner: Int[np.ndarray, ' t'],
  caption_ids: Int[np.ndarray, ' t'],
  *,
  image_ids: Sequence[str] | None = None,
  ties: TieRule = 'expected',
  chunk: int = DEFAULT_CHUNK,
  source: str = 'caption_ids',
) -> Metrics:
  """COCO 1K and 5K, CxC and ECCV Caption from scores of COCO's test set, in any order.

  Args:
    scores: Of every image with every text.
    owner: Row of each text's image.
    caption_ids: COCO's annotation id of each text.
    image_ids: Ids of the images; where all of them are COCO's, they must agree with the captions.
    ties: As in `hrem_jax.ops.ranking`.
    chunk: Queries per block of scores.
    source: Where the caption ids are from, for error messages.

  Returns:
    `coco_1k/...` and `coco_5k/...` as `protocol_metrics` returns them, the five folds being those of Karpathy's order;
    the same recalls and ranks under `cxc/`; `eccv/{i2t,t2i}/{r1,r_precision,map_at_r}`. All but ranks in percent.

  Raises:
    UserError: This is not COCO's test set, or the ids do not fit.
  """
  rows, columns = karpathy_order(owner, scores.shape[0], caption_ids, image_ids, source)
  scores, own = scores.part(rows, columns), np.arange(len(columns)) // COCO_TEXTS_PER_IMAGE
  metrics = protocol_metrics(scores, own, protocol='coco', ties=ties, chunk=chunk)
  image_row, text_row = (
    {id_: row for row, id_ in enumerate(ids.tolist())} for ids in (coco_image_ids(), coco_caption_ids())
  )
  for name, measure in (('cxc', recalls), ('eccv', precisions)):
    i2t = matches_of(judgements(name, 'i2t'), image_row, text_row)
    t2i = matches_of(judgements(name, 't2i'), text_row, image_row)
    found = both_directions(measure, scores, i2t, t2i, ties=ties, chunk=chunk)
    metrics |= {f'{name}/{key}': value for key, value in found.items()}
  return metrics


def karpathy_order(
  owner: Int[np.ndarray, ' t'],
  num_images: int,
  caption_ids: Int[np.ndarray, ' t'],
  image_ids: Sequence[str] | None,
  source: str,
) -> tuple[Int[np.ndarray, ' i'], Int[np.ndarray, ' t']]:
  """Which rows of images and of texts to take, so that they stand in Karpathy's order.

  Raises:
    UserError: As in `judged_metrics`.
  """
  expected, found = coco_caption_ids(), np.asarray(caption_ids)
  if len(found) != len(owner):
    raise UserError(f'{source}: {len(found)} caption ids for {len(owner)} captions')
  _check_caption_ids(found, expected, source)
  columns = np.argsort(found)[np.searchsorted(np.sort(found), expected)]
  groups = check_owner(owner, num_images, len(found))[columns].reshape(-1, COCO_TEXTS_PER_IMAGE)
  is_torn = (groups != groups[:, :1]).any(axis=1)
  is_torn[_repeated(groups[:, 0])] = True
  if is_torn.any():
    odd = int(np.argmax(is_torn))
    five = expected[COCO_TEXTS_PER_IMAGE * odd :][:COCO_TEXTS_PER_IMAGE].tolist()
    raise UserError(f'{source}: captions {five} of COCO image {coco_image_ids()[odd]} do not own one image of the data')
  if num_images != len(groups):
    raise UserError(f'{source}: {num_images} images, COCO 5K has {len(groups)}')
  _check_image_ids(image_ids, groups[:, 0], source)
  return groups[:, 0], columns


def _check_caption_ids(found: Int[np.ndarray, ' t'], expected: Int[np.ndarray, ' t'], source: str) -> None:
  """Raises UserError unless both hold the same numbers, each once."""
  is_known = np.isin(found, expected)
  if not is_known.all():
    row = int(np.argmin(is_known))
    raise UserError(
      f'{source}: {found[row]} (caption {row + 1}) is no caption of COCO 5K, the test set that CxC and ECCV judge'
    )
  values, counts = np.unique(found, return_counts=True)
  if (counts > 1).any():
    raise UserError(f'{source}: caption id {values[counts > 1][0]} stands there {counts[counts > 1][0]} times')
  if len(found) != len(expected):
    missing = expected[~np.isin(expected, found)]
    raise UserError(f'{source}: {len(missing)} of the 25000 captions of COCO 5K are missing, first {missing[0]}')


def _repeated(rows: Int[np.ndarray, ' i']) -> Int[np.ndarray, ' _']:
  """Where a row stands that stood before."""
  return np.setdiff1d(np.arange(len(rows)), np.unique(rows, return_index=True)[1])


def _check_image_ids(image_ids: Sequence[str] | None, rows: Int[np.ndarray, ' i'], source: str) -> None:
  """Ids that are the data set's own numbers say nothing; COCO's must agree with the captions."""
  expected = coco_image_ids()
  known = set(map(str, expected.tolist()))
  if image_ids is None or not all(id_ in known for id_ in image_ids):
    return
  for position, (row, id_) in enumerate(zip(rows.tolist(), expected.tolist(), strict=True)):
    if image_ids[row] != str(id_):
      first = coco_caption_ids()[COCO_TEXTS_PER_IMAGE * position]
      raise UserError(f'{source}: caption {first} belongs to COCO image {id_}, in the data set to {image_ids[row]}')
