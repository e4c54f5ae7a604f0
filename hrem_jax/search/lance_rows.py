"""Rows of a table of LanceDB: what stands in them, and what is asked of them in SQL."""

import contextlib
import dataclasses
import datetime
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hrem_jax.errors import UserError
from hrem_jax.search.blocks import checksum
from hrem_jax.search.index import About, Item, Where

COLUMNS = ('id', 'captions', 'path', 'picture', 'source', 'fingerprint')


def create(address: str, about: About) -> None:
  """Makes an empty table, unless there is one."""
  import pyarrow as pa

  db = connect(address)
  texts = [pa.field(name, pa.string()) for name in (*COLUMNS[1:], 'text')]
  schema = pa.schema(
    [
      pa.field('id', pa.string(), metadata={'about': json_of(about)}),
      *texts,
      pa.field('view', pa.int32()),
      pa.field('checksum', pa.binary()),
      pa.field('vector', pa.list_(pa.from_numpy_dtype(about.dtype), about.size)),
    ]
  )
  try:
    db.open_table(name_of(address))
  except ValueError:  # it is not there
    with contextlib.suppress(ValueError):  # somebody else was quicker
      db.create_table(name_of(address), schema=schema)


def connect(address: str):
  try:
    import lancedb
  except ImportError as error:
    raise UserError(f"{address}: LanceDB is not installed: pip install 'hrem_jax[lance]'") from error
  endpoint, options = os.environ.get('AWS_ENDPOINT_URL'), {}
  if endpoint and address.startswith('s3://'):
    options = {'endpoint': endpoint, 'allow_http': str(endpoint.startswith('http://')).lower()}
  newest = datetime.timedelta(0)
  return lancedb.connect(os.path.dirname(address) or '.', read_consistency_interval=newest, storage_options=options)


def name_of(address: str) -> str:
  return os.path.basename(address).removesuffix('.lance')


def json_of(about: About) -> str:
  return json.dumps(dataclasses.asdict(about))


def rows_of(items: Sequence[Item], vectors: np.ndarray, about: About):
  import pyarrow as pa

  rows = []
  for item, views in zip(items, vectors, strict=True):
    said = {name: getattr(item, name) for name in COLUMNS} | {'captions': json.dumps(item.captions)}
    said['text'] = '\n'.join([*item.captions, item.id, item.path or ''])
    for view, vector in enumerate(views):
      row = said | {'view': view}
      rows.append(row | {'checksum': checksum_of(row, vector)})
  names = [*COLUMNS, 'text', 'view', 'checksum']
  types = [pa.string()] * (len(COLUMNS) + 1) + [pa.int32(), pa.binary()]
  columns = [pa.array([row[name] for row in rows], kind) for name, kind in zip(names, types, strict=True)]
  flat = pa.array(vectors.reshape(-1), pa.from_numpy_dtype(about.dtype))
  return pa.table([*columns, pa.FixedSizeListArray.from_arrays(flat, about.size)], [*names, 'vector'])


def checksum_of(row: dict[str, Any], vector: np.ndarray) -> bytes:
  return checksum([row[name] for name in (*COLUMNS, 'view')], np.ascontiguousarray(vector).data)


def vector_of(row: dict[str, Any]) -> Float[np.ndarray, ' d']:
  return np.asarray(row['vector'], np.float64)


def condition_of(where: Where) -> str:
  """In SQL; captions end where the id begins, which is the line after them."""
  parts = []
  if where.caption:
    parts.append(f'lower(captions) LIKE {_pattern(json.dumps(where.caption.lower())[1:-1])}')
  if where.path:
    expression = ''.join({'*': '.*', '?': '.'}.get(each) or re.escape(each) for each in where.path)
    parts.append(f'regexp_like(path, {quoted([f"^{expression}$"])})')
  return ' AND '.join(parts) or 'true'


def _pattern(part: str) -> str:
  """That of a string with a part in it."""
  escaped = part.replace('\\', '\\\\').replace('%', '\\%').replace('_', '\\_')
  return quoted([f'%{escaped}%'])


def quoted(names: Sequence[str]) -> str:
  return ', '.join("'" + name.replace("'", "''") + "'" for name in names)
