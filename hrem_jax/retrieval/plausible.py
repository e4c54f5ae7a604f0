"""PMRP, plausible match R-precision: images with nearly the same objects answer each other's captions.

Chun et al., CVPR 2021 (PCME): two images match plausibly if their sets of object classes differ in at most `z` classes;
captions have the classes of their image. R-precision is averaged over z = 0, 1, 2. Images without any object, and their
captions, take no part, as in the program of the authors.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.errors import UserError
from hrem_jax.ops.precision import r_precision
from hrem_jax.ops.ranking import TieRule
from hrem_jax.ops.streamed_ranking import DEFAULT_CHUNK
from hrem_jax.retrieval.protocols import Metrics
from hrem_jax.retrieval.scores import Scores, Side

MAX_DIFFERENCES = (0, 1, 2)  # z


def read_class_labels(path: pathlib.Path, image_ids: Sequence[str]) -> Bool[np.ndarray, 'i l']:
  """Which object classes each image has.

  Args:
    path: UTF-8, a line per image in any order: its id, a tab, its classes (any names) with commas between them; nothing
      behind the tab for an image without objects. Other images may be there, too.
    image_ids: In the order of the result.

  Raises:
    UserError: The file is missing, a line is of another form, an image is there twice or not at all, or none has a
      class.
  """
  try:
    lines = path.read_text('utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path}: cannot be read as class labels: {error}') from error
  labels: dict[str, set[str]] = {}
  for number, line in enumerate(lines, start=1):
    image, tab, names = line.partition('\t')
    if not tab or not image.strip():
      raise UserError(f'{path}: line {number} is {line[:60]!r}, expected an image id, a tab, and classes with commas')
    if image.strip() in labels:
      raise UserError(f'{path}: line {number}: image {image.strip()!r} for the second time')
    labels[image.strip()] = {name.strip() for name in names.split(',') if name.strip()}
  missing = [id_ for id_ in image_ids if id_ not in labels]
  if missing:
    raise UserError(
      f'{path}: no line for {len(missing)} of {len(image_ids)} images, the first is {missing[0]!r}; expected are the '
      'ids of SPLIT_ids.txt (the numbers of the images, from 0, where there is no such file)'
    )
  if not any(labels[id_] for id_ in image_ids):
    raise UserError(f'{path}: no class for any of the {len(image_ids)} images')
  classes = sorted(set().union(*(labels[id_] for id_ in image_ids)))
  return np.array([[name in labels[id_] for name in classes] for id_ in image_ids], bool)


def plausible_metrics(
  scores: Scores,
  owner: Int[np.ndarray, ' t'],
  labels: Bool[np.ndarray, 'i l'],
  *,
  ties: TieRule = 'expected',
  chunk: int = DEFAULT_CHUNK,
) -> Metrics:
  """`pm/i2t/r_precision` and `pm/t2i/r_precision`, in percent.

  Args:
    scores: Of every image with every text.
    owner: Row of each text's image.
    labels: As from `read_class_labels`: at least one image with a text has a class.
    ties: As in `hrem_jax.ops.ranking`.
    chunk: Queries per block of scores.
  """
  rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels[owner].any(axis=1))
  scores, of_texts, labels = scores.part(rows, columns), labels[owner[columns]], labels[rows]
  directions = {'i2t': ('images', labels, of_texts), 't2i': ('texts', of_texts, labels)}
  return {
    f'pm/{way}/r_precision': 100.0 * _plausible_precision(scores, *arguments, ties=ties, chunk=chunk)
    for way, arguments in directions.items()
  }


def _plausible_precision(
  scores: Scores,
  side: Side,
  asking_labels: Bool[np.ndarray, 'a l'],
  asked_labels: Bool[np.ndarray, 'c l'],
  *,
  ties: TieRule,
  chunk: int,
) -> float:
  """The mean over z of the mean over the queries that have an answer at that z."""
  found: dict[int, list[np.ndarray]] = {most: [] for most in MAX_DIFFERENCES}
  for rows, block in scores.blocks(np.arange(len(asking_labels)), side=side, chunk=chunk):
    ascending = np.sort(block, axis=1)
    differences = num_differences(asking_labels[rows], asked_labels)
    for most, values in found.items():
      is_match = differences <= most
      counts = np.sum(is_match, axis=1)
      asks = counts > 0
      if asks.any():
        values.append(r_precision(block[asks], ascending[asks], is_match[asks], counts[asks], ties=ties))
  return float(np.mean([np.mean(np.concatenate(values)) for values in found.values()]))


def num_differences(x: Bool[np.ndarray, 'a l'], y: Bool[np.ndarray, 'c l']) -> Float[np.ndarray, 'a c']:
  """How many classes one of two has and the other one has not: small whole numbers, exact in float32."""
  x, y = x.astype(np.float32), y.astype(np.float32)
  return x.sum(axis=1)[:, None] + y.sum(axis=1) - 2 * (x @ y.T)
