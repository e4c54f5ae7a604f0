"""Metrics from scores where a query may have any right answers: one block of scores in memory at a time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from hrem_jax.ops.precision import average_precision_at_r, first_match_ranks, r_precision
from hrem_jax.ops.ranking import RECALL_AT, Ranks, TieRule, recall_metrics
from hrem_jax.ops.streamed_ranking import DEFAULT_CHUNK
from hrem_jax.retrieval.scores import Scores, Side


class Matches(NamedTuple):
  """Right answers of one direction; candidates are all rows of the other modality."""

  queries: Int[np.ndarray, ' q']  # rows
  answers: list[Int[np.ndarray, ' _']]  # rows of the right candidates of each query, none twice
  counts: Int[np.ndarray, ' q']  # how many there are, those that are not among the candidates included


def matches_of(
  judged: Mapping[int, Sequence[int]], query_row: Mapping[int, int], candidate_row: Mapping[int, int]
) -> Matches:
  """Judgements in ids as rows; an answer that is no candidate counts, but cannot be found.

  Raises:
    KeyError: A query has no row.
  """
  answers = [np.array([candidate_row[id_] for id_ in set(ids) if id_ in candidate_row], int) for ids in judged.values()]
  counts = [len(set(ids)) for ids in judged.values()]
  return Matches(np.array([query_row[id_] for id_ in judged], int), answers, np.array(counts, int))


def recalls(
  scores: Scores, matches: Matches, *, side: Side, ties: TieRule, chunk: int = DEFAULT_CHUNK
) -> dict[str, float]:
  """`r1`, `r5`, `r10`, `median_rank`, `mean_rank` of the best right answer, as `hrem_jax.ops.ranking` defines them."""
  found = [
    first_match_ranks(block, _is_answer(matches, rows, block.shape[1]))
    for rows, block in scores.blocks(matches.queries, side=side, chunk=chunk)
  ]
  return _recall_metrics(found, ties)


def precisions(
  scores: Scores, matches: Matches, *, side: Side, ties: TieRule, chunk: int = DEFAULT_CHUNK
) -> dict[str, float]:
  """`r1`, `r_precision` and `map_at_r`, in percent."""
  ranks, by_place, averages = [], [], []
  for rows, block in scores.blocks(matches.queries, side=side, chunk=chunk):
    is_answer, counts = _is_answer(matches, rows, block.shape[1]), matches.counts[rows]
    ranks.append(first_match_ranks(block, is_answer))
    by_place.append(r_precision(block, np.sort(block, axis=1), is_answer, counts, ties=ties))
    queries = zip(block, is_answer, counts.tolist(), strict=True)
    averages += [average_precision_at_r(*query, ties=ties) for query in queries]
  percent = 100.0 * float(np.mean(np.concatenate(by_place)))
  return {
    'r1': _recall_metrics(ranks, ties)['r1'],
    'r_precision': percent,
    'map_at_r': 100.0 * float(np.mean(averages)),
  }


def both_directions(measure, scores: Scores, i2t: Matches, t2i: Matches, **options) -> dict[str, float]:
  """`measure` (`recalls` or `precisions`) as `i2t/...` and `t2i/...`; of recalls also `rsum`."""
  directions = {
    'i2t': measure(scores, i2t, side='images', **options),
    't2i': measure(scores, t2i, side='texts', **options),
  }
  metrics = {f'{way}/{key}': value for way, figures in directions.items() for key, value in figures.items()}
  if measure is recalls:
    metrics['rsum'] = sum(metrics[f'{way}/r{k}'] for way in directions for k in RECALL_AT)
  return metrics


def _recall_metrics(blocks: Sequence[Ranks], ties: TieRule) -> dict[str, float]:
  return recall_metrics(Ranks(*map(np.concatenate, zip(*blocks, strict=True))), ties=ties)


def _is_answer(matches: Matches, rows: slice, num_candidates: int) -> Bool[np.ndarray, 'b c']:
  answers = matches.answers[rows]
  is_answer = np.zeros((len(answers), num_candidates), bool)
  for row, answer in zip(is_answer, answers, strict=True):
    row[answer] = True
  return is_answer
