"""An index as a table of LanceDB: for buckets, and for many machines that read and change it at the same time.

A row is an embedding with all that is known of its picture, under a checksum that is compared when it is read.
"""

import contextlib
import datetime
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from hrem_jax.errors import UserError, one_line
from hrem_jax.search.index import About, BrokenIndex, Found, Item, State, UnknownPicture, Where, check_added
from hrem_jax.search.lance_rows import (
  COLUMNS,
  checksum_of,
  condition_of,
  connect,
  json_of,
  name_of,
  quoted,
  rows_of,
  vector_of,
)
from hrem_jax.search.words import words_of

Answer = TypeVar('Answer')
_MOST_FRAGMENTS, _MOST_UNCOVERED, _TRIES = 50, 0.1, 20
_ONCE = datetime.timedelta(milliseconds=1)  # nothing is kept of versions that are older


class LanceIndex:
  """See `hrem_jax.search.index.Index`.

  Args:
    address: A folder or an object store's address that ends in `.lance`.
  """

  backends = ('exact', 'lance')

  def __init__(self, address: str):
    self.address = address
    with self._told():
      self._table = connect(address).open_table(name_of(address))
    self._id, self._sorted_ids = self._about().id, (None, [])

  def __enter__(self) -> 'LanceIndex':
    return self

  def __exit__(self, *exception: object) -> None:
    with self._told():
      if self._table.stats()['fragment_stats']['num_fragments'] > _MOST_FRAGMENTS:
        self._retried(self._table.optimize)

  def state(self) -> State:
    with self._told():
      while True:
        version = self._table.version
        state = State(self._about(), version, self._table.count_rows('view = 0'))
        if self._table.version == version:
          return state

  def describe(self, about: About) -> None:
    with self._told():
      said = {'path': 'id', 'metadata': {'about': json_of(about)}}
      self._retried(lambda: self._table.update_field_metadata(said))

  def add(self, items: Sequence[Item], vectors: Float[np.ndarray, 'n v d']) -> None:
    if not items:
      return
    about = self._about()
    check_added(items, vectors, about, self.address)
    rows = rows_of(items, vectors.astype(about.dtype), about)
    with self._told():
      merge = self._table.merge_insert(['id', 'view']).when_matched_update_all().when_not_matched_insert_all()
      self._retried(lambda: merge.execute(rows))

  def delete(self, ids: Sequence[str]) -> list[str]:
    with self._told():
      there = set(self.fingerprints(ids))
      if there:
        self._retried(lambda: self._table.delete(f'id IN ({quoted(there)})'))
      for index in self._table.list_indices():  # they know what was deleted
        self._table.drop_index(index.name)
      if self._table.count_rows():
        self._retried(lambda: self._table.update(values_sql={'captions': 'captions'}))  # every file is written anew
      time.sleep(2 * _ONCE.total_seconds())
      self._retried(lambda: self._table.optimize(cleanup_older_than=_ONCE))
    return [name for name in dict.fromkeys(ids) if name not in there]

  def nearest(
    self, queries: Float[np.ndarray, 'q d'], count: int, *, backend: str = 'exact', where: Where | None = None
  ) -> list[Found]:
    best: dict[str, Found] = {}
    with self._told():
      for query in queries if count > 0 else ():
        for found in self._retried(lambda query=query: self._nearest_rows(query, count, backend, where)):
          if found.item.id not in best or best[found.item.id].score < found.score:
            best[found.item.id] = found
    return sorted(best.values(), key=lambda found: (-found.score, found.item.id))[: max(count, 0)]

  def words(self, text: str, count: int, *, where: Where | None = None) -> list[Found]:
    from lancedb.index import FTS

    phrases = words_of(text)
    with self._told():
      if not any(index.columns == ['text'] for index in self._table.list_indices()):
        said = FTS(with_position=True, stem=False, remove_stop_words=False)
        self._retried(lambda: self._table.create_index('text', config=said))
      found = self._retried(lambda: self._with_words(phrases, count, where))
    return sorted(found, key=lambda found: (-found.score, found.item.id))[:count]

  def _with_words(self, phrases: list[str], count: int, where: Where | None) -> list[Found]:
    """All with the best scores; those that are equal at the end of them, too."""
    from lancedb.query import BooleanQuery, MatchQuery, Occur, PhraseQuery

    parts = [
      (Occur.MUST, PhraseQuery(each, 'text') if re.search(r'\w\W+\w', each) else MatchQuery(each, 'text'))
      for each in phrases
    ]
    condition, limit = f'view = 0 AND {condition_of(where)}' if where else 'view = 0', 2 * count + 8
    while True:
      search = self._table.search(BooleanQuery(parts), query_type='fts').where(condition, prefilter=True)
      rows = search.limit(limit).to_arrow().to_pylist()
      if len(rows) < limit or (len(rows) > count and rows[-1]['_score'] < rows[count - 1]['_score']):
        return [Found(self._item(row), float(row['_score'])) for row in rows]
      limit *= 4

  def item(self, id: str) -> Item:
    return self._item(self._rows_of(id)[0])

  def vectors(self, id: str) -> Float[np.ndarray, 'v d']:
    return np.array([vector_of(row) for row in self._rows_of(id)], np.float32)

  def ids(self, start: int = 0, count: int | None = None) -> list[str]:
    with self._told():
      version = self._table.version
      if self._sorted_ids[0] != version:
        table = self._table.search().where('view = 0').select(['id']).limit(None).to_arrow()
        self._sorted_ids = version, sorted(table['id'].to_pylist())
    return self._sorted_ids[1][start : None if count is None else start + count]

  def fingerprints(self, ids: Sequence[str]) -> dict[str, str]:
    if not ids:
      return {}
    with self._told():
      query = self._table.search().where(f'view = 0 AND id IN ({quoted(ids)})')
      rows = query.select(['id', 'fingerprint']).limit(None).to_arrow().to_pylist()
    return {row['id']: row['fingerprint'] for row in rows}

  def prepare(self, backend: str) -> float | None:
    with self._told():
      there = [index.name for index in self._table.list_indices() if index.columns == ['vector']]
      rows = self._table.count_rows()
      if backend == 'exact' or not rows:
        return None
      if there and self._table.index_stats(there[0]).num_unindexed_rows <= _MOST_UNCOVERED * rows:
        return None
      from lancedb.index import HnswSq

      start = time.perf_counter()
      self._table.create_index('vector', config=HnswSq(distance_type='dot'))
      return time.perf_counter() - start

  def problems(self) -> list[str]:
    try:
      with self._told():
        for batch in self._table.search().limit(None).to_batches():
          for row in batch.to_pylist():
            self._item(row)
    except BrokenIndex as error:
      return [str(error)]
    return []

  def _nearest_rows(self, query: Float[np.ndarray, ' d'], count: int, backend: str, where: Where | None) -> list[Found]:
    """All that comes into question; the float32 scores of the engine say where it ends."""
    about = self._about()
    limit = count * about.views + 8
    while True:
      search = self._table.search(query.astype(about.dtype), vector_column_name='vector').distance_type('dot')
      search = search.bypass_vector_index() if backend == 'exact' else search.nprobes(20).ef(max(128, 2 * limit))
      search = search.where(condition_of(where), prefilter=True) if where else search
      rows = search.limit(limit).to_arrow().to_pylist()
      wide = query.astype(np.float64)
      found = [Found(self._item(row), float((vector_of(row) * wide).sum())) for row in rows]
      scores = sorted(
        {each.item.id: each.score for each in sorted(found, key=lambda f: f.score)}.values(), reverse=True
      )
      rounding = 2e-3 if about.dtype == 'float16' else 2 * len(query) * float(np.finfo(np.float32).eps)
      is_all = len(rows) < limit or backend != 'exact'
      if is_all or (len(scores) >= count and 1 - rows[-1]['_distance'] < scores[count - 1] - rounding):
        return found
      limit *= 4

  def _rows_of(self, name: str) -> list[dict[str, Any]]:
    with self._told():
      rows = self._table.search().where(f'id IN ({quoted([name])})').limit(None).to_arrow().to_pylist()
    if not rows:
      raise UnknownPicture(f'{self.address}: no picture {name!r} in this index')
    return sorted(rows, key=lambda row: row['view'])

  def _item(self, row: dict[str, Any]) -> Item:
    if row['checksum'] != checksum_of(row, np.asarray(row['vector'], self._about().dtype)):
      raise BrokenIndex(f'{self.address}: the index is damaged: picture {row["id"]!r} is not what was written')
    return Item(row['id'], tuple(json.loads(row['captions'])), **{key: row[key] for key in COLUMNS[2:]})

  def _about(self) -> About:
    about = About.from_json(json.loads(self._table.schema.field('id').metadata[b'about']))
    if about.id != getattr(self, '_id', about.id):
      raise BrokenIndex(f'{self.address}: another index has taken its place; open it again')
    return about

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    """What LanceDB raises inside, in one line that says whose it is."""
    try:
      yield
    except UserError:
      raise
    except (RuntimeError, OSError, ValueError, KeyError) as error:
      raise BrokenIndex(f'{self.address}: LanceDB: {one_line(error)[:300]}') from error

  def _retried(self, change: Callable[[], Answer]) -> Answer:
    """Does it again where somebody else has changed the table meanwhile."""
    for left in reversed(range(_TRIES)):
      try:
        return change()
      except (RuntimeError, OSError, ValueError):
        if not left:
          raise
        time.sleep(random.uniform(0, 0.2))
    raise AssertionError
