"""A file of a public program's numbers, and what became of each of its arrays."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax
import numpy as np

from hrem_jax.ports.tables import Entry

VALUE_BOUNDS = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-5}
GRADIENT_BOUND = 1e-4
PARAMETER_BOUND = 1e-5  # after a trajectory


class Line(NamedTuple):
  """What became of one array."""

  name: str
  verdict: str  # equal, short, not ours, used, unknown
  error: float | None = None

  @property
  def failed(self) -> bool:
    return self.verdict in ('short', 'unknown')

  def __str__(self) -> str:
    return f'{self.name:<76} {"" if self.error is None else f"{self.error:.1e}":>8}  {self.verdict}'


class GoldenFile:
  """Arrays by name. Each is used, compared or set aside; what nobody asked for is unknown.

  Attributes:
    dtype: What is computed in; floating-point arrays are handed out in it.
  """

  def __init__(self, path: pathlib.Path, dtype: Any = np.float64):
    self.path, self.dtype = pathlib.Path(path), np.dtype(dtype)
    with np.load(self.path) as arrays:
      self._arrays = {name: arrays[name] for name in arrays.files}
    self._lines: dict[str, Line] = {}

  def __contains__(self, name: str) -> bool:
    return name in self._arrays

  def names(self, prefix: str | tuple[str, ...] = '') -> list[str]:
    return [name for name in self._arrays if name.startswith(prefix)]

  def use(self, name: str) -> np.ndarray:
    """An input, a weight or a setting."""
    self._lines.setdefault(name, Line(name, 'used'))
    return self._in_dtype(self._arrays[name])

  def use_below(self, prefix: str) -> dict[str, np.ndarray]:
    """All entries below a prefix, without it."""
    return {name.removeprefix(prefix): self.use(name) for name in self.names(prefix)}

  def settings(self, name: str) -> dict:
    return json.loads(str(self.use(name))) if name in self else {}

  def set_aside(self, prefixes: Iterable[str]) -> None:
    """The public program's own behaviour, which we do not reproduce."""
    for name in self.names(tuple(prefixes)):
      self._lines[name] = Line(name, 'not ours')

  def compare(self, name: str, found: Any, *, real: np.ndarray | None = None, bound: float | None = None) -> None:
    """The largest difference beside 1 or the largest entry; only where `real` is True, of the leading axes."""
    bound = VALUE_BOUNDS[self.dtype] if bound is None else bound
    expected, found = np.asarray(self._arrays[name], np.float64), np.asarray(found, np.float64)
    self._record(name, found, expected, real, bound, at_least=1.0)

  def compare_gradient(self, name: str, found: Any) -> None:
    """The largest difference beside the largest entry."""
    expected, found = np.asarray(self._arrays[name], np.float64), np.asarray(found, np.float64)
    self._record(name, found, expected, None, GRADIENT_BOUND, at_least=0.0)

  def compare_number(self, name: str, found: Any, expected: float) -> None:
    """A number that stands within the settings `name`."""
    self._record(name, np.float64(found), np.float64(expected), None, VALUE_BOUNDS[self.dtype], at_least=1.0)

  def compare_parameters(
    self,
    prefix: str,
    entries: Iterable[Entry],
    tree: Mapping,
    *,
    num_layers: int = 0,
    leave_out: tuple[str, ...] = (),
    bound: float = GRADIENT_BOUND,
  ) -> None:
    """A tree of our parameters, or of their gradients, with the arrays of a table that are there.

    Args:
      prefix: Of their names in the file.
      entries: The table.
      tree: Ours.
      num_layers: How many `{layer}` there are.
      leave_out: Ends of our paths that are not compared: gradients that are zero in truth.
      bound: Of the difference beside the largest entry.
    """
    ours = flat(tree)
    for entry in entries:
      stacked = '{layer}' in entry.theirs
      for layer in range(num_layers if stacked else 1):
        name = prefix + entry.theirs.format(layer=layer)
        if name in self and entry.ours.endswith(leave_out):
          self.use(name)
        elif name in self:
          array = np.asarray(self._arrays[name], np.float64)
          found = ours[entry.ours][layer] if stacked else ours[entry.ours]
          self._record(name, found, entry.read(array), None, bound, at_least=0.0, largest=np.max(np.abs(array)))

  def lines(self) -> list[Line]:
    return [self._lines.get(name, Line(name, 'unknown')) for name in self._arrays]

  def sibling(self, name: str) -> 'GoldenFile':
    """Another file of the same folder, for its weights."""
    return GoldenFile(self.path.with_name(name), self.dtype)

  def _in_dtype(self, array: np.ndarray) -> np.ndarray:
    return array.astype(self.dtype) if np.issubdtype(array.dtype, np.floating) else array

  def _record(self, name, found, expected, real, bound, *, at_least, largest=0.0) -> None:
    error = np.inf  # as short as can be
    if found.shape == expected.shape:
      found, expected = (found, expected) if real is None else (found[real], expected[real])
      with np.errstate(invalid='ignore'):  # equal infinities
        difference = np.max(np.where(found == expected, 0.0, np.abs(found - expected)), initial=0.0)
      largest = max(at_least, largest, np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
      error = difference / largest if largest else difference
    before = self._lines.get(name)  # several of our parameters may be one array of theirs: the worst counts
    error = max(float(error), before.error if before and before.error is not None else 0.0)
    self._lines[name] = Line(name, 'equal' if error < bound else 'short', error)


def flat(tree: Mapping) -> dict[str, np.ndarray]:
  """A nested tree by paths."""
  return {path: np.asarray(array) for path, array in flax.traverse_util.flatten_dict(tree, sep='/').items()}
