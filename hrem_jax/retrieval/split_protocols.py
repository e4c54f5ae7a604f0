"""The metrics of a split as a configuration wants them: the protocol, and what it needs beside scores."""

import ml_collections
import numpy as np
from jaxtyping import Bool, Int

from hrem_jax.data.caption_ids import caption_ids_path, read_caption_ids
from hrem_jax.data.precomputed import Split, data_folder
from hrem_jax.errors import UserError
from hrem_jax.paths import local_path
from hrem_jax.retrieval.coco_judgements import coco_caption_ids, judged_metrics, karpathy_order
from hrem_jax.retrieval.plausible import plausible_metrics, read_class_labels
from hrem_jax.retrieval.protocols import Metrics, check_protocol, protocol_metrics
from hrem_jax.retrieval.scores import ChanceScores, Scores

KARPATHY = 'karpathy'  # as evaluation.caption_ids: the split is in the order of Karpathy's dataset_coco.json


def check_split(split: Split, config: ml_collections.ConfigDict) -> None:
  """Raises UserError where `evaluate_split` would, before minutes were spent on embeddings."""
  settings = config.evaluation
  if settings.protocol == 'eccv':
    ids, source = _caption_ids(split, config)
    karpathy_order(split.owner, split.num_images, ids, split.ids, source)
  else:
    check_protocol(settings.protocol, split.num_images, split.owner)
  if settings.class_labels:
    _class_labels(split, config)


def recall_only(config: ml_collections.ConfigDict, protocol: str = 'all') -> ml_collections.ConfigDict:
  """The same configuration with another protocol, and nothing asked for beside recall."""
  config = config.copy_and_resolve_references()
  config.evaluation.update(protocol=protocol, caption_ids='', class_labels='')
  return config


def evaluate_split(scores: Scores, split: Split, config: ml_collections.ConfigDict) -> Metrics:
  """Metrics by `protocol`, `ties`, `caption_ids` and `class_labels` of the section `evaluation`.

  Every evaluation comes through here: of a selection split, of a test split, of an ensemble, of a transfer.

  Args:
    scores: Of the split, from whatever makes them.
    split: The images and texts that were scored.
    config: A whole configuration; its section `data` says where `SPLIT_caption_ids.txt` is looked for.

  Raises:
    UserError: A file that the protocol needs is missing or does not fit the split.
  """
  settings = config.evaluation
  if settings.protocol == 'eccv':
    ids, source = _caption_ids(split, config)
    metrics = judged_metrics(scores, split.owner, ids, image_ids=split.ids, ties=settings.ties, source=source)
  else:
    metrics = protocol_metrics(scores, split.owner, protocol=settings.protocol, ties=settings.ties)
  if settings.class_labels:
    labels = _class_labels(split, config)
    metrics |= plausible_metrics(scores, split.owner, labels, ties=settings.ties)
  return metrics


def chance_on_split(split: Split, config: ml_collections.ConfigDict) -> Metrics:
  """The same metrics of a model that scores every pair alike: what guessing is worth."""
  config = config.copy_and_resolve_references()
  config.evaluation.ties = 'expected'
  return evaluate_split(ChanceScores((split.num_images, len(split.captions))), split, config)


def _class_labels(split: Split, config: ml_collections.ConfigDict) -> Bool[np.ndarray, 'i l']:
  return read_class_labels(local_path(config.evaluation.class_labels), split.ids)


def _caption_ids(split: Split, config: ml_collections.ConfigDict) -> tuple[Int[np.ndarray, ' t'], str]:
  """COCO's ids of the captions, and where they are from."""
  given = config.evaluation.caption_ids
  if given == KARPATHY:
    return coco_caption_ids(), 'config.evaluation.caption_ids=karpathy'
  path = local_path(given) if given else caption_ids_path(data_folder(config.data), split.name)
  if not path.is_file():
    raise UserError(
      f'{path}: no such file; protocol eccv needs the COCO annotation id of each caption, one a line: `python -m '
      f'hrem_jax caption-ids` makes the file, config.evaluation.caption_ids names another one, or is {KARPATHY!r}'
    )
  return read_caption_ids(path), str(path)
