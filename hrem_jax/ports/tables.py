"""One mechanism for weights from elsewhere: tables of (our path, their name, how to read it)."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import flax
import numpy as np

from hrem_jax.errors import UserError

Read = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
  """One parameter of ours. `{layer}` in `theirs` stands for a layer number: those are stacked along a first axis."""

  ours: str  # path in our tree, '/' between the levels
  theirs: str
  read: Read = np.asarray


def dense(ours: str, theirs: str) -> list[Entry]:
  """A PyTorch Linear keeps its weight as (out, in), ours as (in, out)."""
  return [Entry(f'{ours}/kernel', f'{theirs}.weight', np.transpose), Entry(f'{ours}/bias', f'{theirs}.bias')]


def norm(ours: str, theirs: str) -> list[Entry]:
  return [Entry(f'{ours}/scale', f'{theirs}.weight'), Entry(f'{ours}/bias', f'{theirs}.bias')]


def fused_attention(ours: str, theirs: str) -> list[Entry]:
  """PyTorch's MultiheadAttention keeps query, key and value as one (3d, d) weight, in this order."""

  def third(position: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.split(array, 3)[position].T

  entries = []
  for position, name in enumerate(('query', 'key', 'value')):
    entries.append(Entry(f'{ours}/{name}/kernel', f'{theirs}.in_proj_weight', third(position)))
    entries.append(Entry(f'{ours}/{name}/bias', f'{theirs}.in_proj_bias', third(position)))
  return [*entries, *dense(f'{ours}/output', f'{theirs}.out_proj')]


def bidirectional_gru(ours: str, theirs: str) -> list[Entry]:
  """`torch.nn.GRU` of one layer: its gates stand in the same order as those of `hrem_jax.models.bigru.Gru`."""
  entries = []
  for direction, suffix in (('forward', 'l0'), ('backward', 'l0_reverse')):
    entries += [
      Entry(f'{ours}/{direction}/input/kernel', f'{theirs}.weight_ih_{suffix}', np.transpose),
      Entry(f'{ours}/{direction}/input/bias', f'{theirs}.bias_ih_{suffix}'),
      Entry(f'{ours}/{direction}/recurrent_kernel', f'{theirs}.weight_hh_{suffix}', np.transpose),
      Entry(f'{ours}/{direction}/recurrent_bias', f'{theirs}.bias_hh_{suffix}'),
    ]
  return entries


def read_entries(
  tensors: Mapping[str, np.ndarray], entries: Iterable[Entry], *, source: str, num_layers: int = 0
) -> dict:
  """Builds the nested tree of our parameters.

  Args:
    tensors: Their arrays by name.
    entries: The table.
    source: The file, for the error message.
    num_layers: How many `{layer}` there are.

  Raises:
    UserError: A name of the table is not among `tensors`, or a tensor has a shape that cannot be right.
  """

  def read(entry: Entry, name: str) -> np.ndarray:
    if name not in tensors:
      raise UserError(f'{source}: no tensor {name!r} (wanted for {entry.ours}); it holds {_some_names(tensors)}')
    array = tensors[name]
    try:
      return np.ascontiguousarray(entry.read(array))
    except ValueError as error:  # attention that is not three equal parts, say
      raise UserError(f'{source}: {name!r} has a shape that does not fit, {array.shape}: {error}') from error

  tree = {}
  for entry in entries:
    if '{layer}' in entry.theirs:
      layers = [read(entry, entry.theirs.format(layer=layer)) for layer in range(num_layers)]
      shapes = sorted({layer.shape for layer in layers})
      if len(shapes) > 1:
        raise UserError(f'{source}: {entry.theirs!r} has layers of different shapes: {", ".join(map(str, shapes))}')
      tree[entry.ours] = np.stack(layers)
    else:
      tree[entry.ours] = read(entry, entry.theirs)
  return flax.traverse_util.unflatten_dict(tree, sep='/')


def _some_names(tensors: Mapping[str, np.ndarray], shown: int = 3) -> str:
  names = sorted(tensors)
  return ', '.join(map(repr, names[:shown])) + (f' and {len(names) - shown} more' if len(names) > shown else '')
