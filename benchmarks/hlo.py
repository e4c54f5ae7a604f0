"""What a compiled program does on each device: multiply-adds and bytes of collectives, read off its HLO text.

XLA's own `cost_analysis` counts the body of a loop once, whatever its trip count; this reader multiplies.
"""

import collections
import math
import re
from typing import NamedTuple

COLLECTIVES = ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute', 'reduce-scatter')
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2, 's64': 8, 'u64': 8, 'f64': 8}

COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{')
INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')
NAME = re.compile(r'%([\w.\-]+)')
TRIP_COUNT = re.compile(r'known_trip_count[^\d]*(\d+)')
OPERATION = re.compile(r'op_name="([^"]*)"')


class Costs(NamedTuple):
  """Of one run of a program on one device."""

  multiply_adds: collections.Counter  # by the name of the operation in the traced program
  collective_bytes: collections.Counter  # by kind: size of what each device gets

  def plus(self, other: 'Costs', times: int = 1) -> 'Costs':
    def add(a, b):
      return a + collections.Counter({key: value * times for key, value in b.items()})

    return Costs(*(add(a, b) for a, b in zip(self, other, strict=True)))


NOTHING = Costs(collections.Counter(), collections.Counter())


def costs(text: str) -> Costs:
  """Reads `compiled.as_text()`.

  Loops count as often as they run (all of the project's have a known number of turns); of a conditional's branches
  the most expensive one counts.
  """
  computations, entry = _computations(text)
  known: dict[str, Costs] = {}

  def of(name: str) -> Costs:
    if name not in known:
      known[name] = _of_computation(computations[name], of)
    return known[name]

  return of(entry)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """The lines of each computation by its name, and the name of the entry."""
  found, entry, current = {}, '', []
  for line in text.splitlines():
    if match := COMPUTATION.match(line):
      current = found.setdefault(match[2], [])
      entry = match[2] if match[1] else entry
    else:
      current.append(line)
  return found, entry


def _of_computation(lines: list[str], of) -> Costs:
  total, shapes = NOTHING, {}
  for line in lines:
    match = INSTRUCTION.match(line)
    if not match:
      continue
    name, shape, kind, rest = match.groups()
    shapes[name] = shape
    if kind == 'dot':
      label = OPERATION.search(rest)
      total = total.plus(Costs(collections.Counter({label[1] if label else '': _dot(shape, rest, shapes)}), NOTHING[1]))
    elif kind.removesuffix('-start') in COLLECTIVES:
      total = total.plus(Costs(NOTHING[0], collections.Counter({kind.removesuffix('-start'): _bytes(shape)})))
    elif kind == 'while':
      turns = TRIP_COUNT.search(rest)
      total = total.plus(of(_called(rest, 'body')[0]), int(turns[1]) if turns else 1)
    elif kind == 'conditional':
      branches = [of(branch) for branch in _called(rest, 'branch_computations')]
      total = total.plus(max(branches, key=lambda branch: branch.multiply_adds.total()))
    else:
      for called in _called(rest, 'calls') + _called(rest, 'to_apply'):
        total = total.plus(of(called))
  return total


def _called(rest: str, attribute: str) -> list[str]:
  match = re.search(attribute + r'=(\{[^}]*\}|%[\w.\-]+)', rest)
  return NAME.findall(match[1]) if match else []


def _dimensions(shape: str) -> list[int]:
  return [int(size) for size in ARRAY.search(shape)[2].split(',') if size]


def _dot(shape: str, rest: str, shapes: dict[str, str]) -> int:
  left = _dimensions(shapes[NAME.search(rest)[1]])
  contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', rest)[1]
  return math.prod(_dimensions(shape)) * math.prod(left[int(axis)] for axis in contracted.split(',') if axis)


def _bytes(shape: str) -> int:
  return sum(
    BYTES.get(kind, 4) * math.prod(int(size) for size in sizes.split(',') if size)
    for kind, sizes in ARRAY.findall(shape)
  )
