"""Sampling what the demo pictures show: scenes, and families of hard neighbours.

Everything here is abstract: no pixel is drawn and no word is said. `facts` is the one account of what is true of a
scene; captions are checked against it, and two scenes count as equal when their facts are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations

import numpy as np

from hrem_jax.data.demo.catalogue import BACKGROUNDS, COLOURS, KINDS, SIZES
from hrem_jax.data.demo.layout import LAYOUTS, Piece, Rows, arrange, block_of, is_above, is_left_of, is_near, place_of
from hrem_jax.errors import UserError

MAX_OBJECTS = 6  # in one picture
NUM_VARIANTS = 3  # of each background
_ATTEMPTS = 200  # before giving up on finding a scene that is new

Fact = tuple[str | int, ...]


@dataclass(frozen=True)
class Group:
  """One to three equal objects that stand together. `colour` is None where the kind keeps its own colours."""

  kind: str
  colour: str | None
  size: str
  count: int


@dataclass(frozen=True)
class Scene:
  """What one picture shows. No two groups of a scene are of the same kind, so a kind names a group."""

  background: str
  variant: int
  rows: Rows
  groups: tuple[Group, ...]
  pieces: tuple[Piece, ...] = ()


@lru_cache(maxsize=64)  # a family is asked for again and again while its captions are drawn
def facts(scene: Scene) -> frozenset[Fact]:
  """All that is true of a scene and may be said of it, e.g. ('colour', 'car', 'red') or ('left', 'car', 'dog')."""
  found: set[Fact] = {('background', scene.background)}
  blocks = {group.kind: block_of(scene.pieces, number) for number, group in enumerate(scene.groups)}
  for group in scene.groups:
    found |= {('object', group.kind), ('count', group.kind, group.count)}
    if group.count > 1:
      found.add(('several', group.kind))
    if group.colour:
      found.add(('colour', group.kind, group.colour))
    if group.size != 'medium':
      found.add(('size', group.kind, group.size))
    if place := place_of(blocks[group.kind]):
      found.add(('place', group.kind, place))
  for one, other in permutations(scene.groups, 2):
    if one.size == 'large' and other.size == 'small' and one.count == other.count == 1:
      found.add(('larger', one.kind, other.kind))
    for name, holds in (('left', is_left_of), ('above', is_above), ('near', is_near)):
      if holds(blocks[one.kind], blocks[other.kind]):
        found.add((name, one.kind, other.kind))
  for first, middle, last in permutations([group.kind for group in scene.groups], 3):
    for name in ('left', 'above'):
      if {(name, first, middle), (name, middle, last)} <= found:
        found |= {('between', middle, first, last), ('between', middle, last, first)}
  return frozenset(found)


def _choose(options: Iterable, rng: np.random.Generator, weights: tuple[float, ...] | None = None):
  """One of the options, by weights that sum to one."""
  options = tuple(options)
  return options[rng.choice(len(options), p=weights)]


def _place(scene: Scene, rng: np.random.Generator) -> Scene | None:
  """The scene with its objects put into the picture, or None if they do not fit."""
  counts = [group.count for group in scene.groups]
  for _ in range(8):  # another formation may fit where this one does not
    sides = [int(_choose(SIZES[group.size], rng)) for group in scene.groups]
    if pieces := arrange(scene.rows, counts, sides, rng):
      return replace(scene, pieces=pieces)
  return None


def _sample_scene(rng: np.random.Generator) -> Scene:
  """A scene of two to four kinds, not yet placed."""
  kinds = rng.permutation(list(KINDS))[: _choose((2, 3, 4), rng, (0.45, 0.43, 0.12))]
  groups = []
  for kind in kinds:
    count = 1 if len(kinds) == 4 else _choose((1, 2, 3), rng, (0.6, 0.22, 0.18))
    size = _choose(SIZES, rng, (0.3, 0.4, 0.3) if count == 1 else (0.35, 0.65, 0.0))
    colour = _choose(COLOURS, rng) if KINDS[kind].fills else None
    groups.append(Group(str(kind), colour, size, count))
  background, variant = _choose(BACKGROUNDS, rng), int(rng.integers(NUM_VARIANTS))
  return Scene(background, variant, _choose(LAYOUTS[len(kinds)], rng), tuple(groups))


def _with_group(scene: Scene, number: int, group: Group) -> Scene:
  """The scene with one group replaced."""
  return replace(scene, groups=(*scene.groups[:number], group, *scene.groups[number + 1 :]))


def _move(scene: Scene, rng: np.random.Generator) -> Scene:
  """Two groups change places."""
  one, other = rng.permutation(len(scene.groups))[:2]
  groups = list(scene.groups)
  groups[one], groups[other] = groups[other], groups[one]
  return replace(scene, groups=tuple(groups))


def _recolour(scene: Scene, rng: np.random.Generator) -> Scene | None:
  """Two coloured groups exchange their colours, or one takes another colour."""
  coloured = [number for number, group in enumerate(scene.groups) if group.colour]
  if not coloured:
    return None
  if len(coloured) > 1 and rng.random() < 0.6:
    one, other = rng.permutation(coloured)[:2]
    first, second = scene.groups[one], scene.groups[other]
    scene = _with_group(scene, one, replace(first, colour=second.colour))
    return _with_group(scene, other, replace(second, colour=first.colour))
  number = _choose(coloured, rng)
  return _with_group(scene, number, replace(scene.groups[number], colour=_choose(COLOURS, rng)))


def _recount(scene: Scene, rng: np.random.Generator) -> Scene | None:
  """One group grows or shrinks."""
  number = int(rng.integers(len(scene.groups)))
  group = replace(scene.groups[number], count=_choose((1, 2, 3), rng))
  # Two or three large objects of a kind leave no room for anything else.
  return None if group.count > 1 and group.size == 'large' else _with_group(scene, number, group)


def _resize(scene: Scene, rng: np.random.Generator) -> Scene | None:
  """One group becomes small, or large if it is a single object."""
  number = int(rng.integers(len(scene.groups)))
  group = replace(scene.groups[number], size=_choose(('small', 'large'), rng))
  return None if group.count > 1 and group.size == 'large' else _with_group(scene, number, group)


def _change_background(scene: Scene, rng: np.random.Generator) -> Scene:
  """The same objects somewhere else."""
  return replace(scene, background=_choose(BACKGROUNDS, rng))


_CHANGES: tuple[Callable, ...] = (_move, _recolour, _recount, _resize, _change_background)
_CHANGE_WEIGHTS = (0.3, 0.3, 0.2, 0.12, 0.08)


class Sampler:
  """Draws families of scenes for one data set; remembers what it gave so that nothing comes twice."""

  def __init__(self):
    self._kinds: set[frozenset[str]] = set()
    self._drafts: set[Scene] = set()  # without pieces and variant
    self._facts: set[frozenset[Fact]] = set()

  def families(self, num_pictures: int, rng: np.random.Generator) -> list[tuple[Scene, ...]]:
    """Families of two to four scenes with the same kinds of objects, `num_pictures` scenes in all.

    The set of kinds of a family belongs to it alone, in this and every later call, so a scene's hard neighbours are
    its own family and nothing else. No two scenes of a sampler have the same facts.

    Raises:
      UserError: so many scenes were asked for that no new one can be found.
    """
    result, left = [], num_pictures
    while left:
      size = left if left <= 4 else min(int(rng.integers(2, 5)), left - 2)  # never leaves a scene on its own
      result.append(self._family(size, rng))
      left -= size
    return result

  def _family(self, size: int, rng: np.random.Generator) -> tuple[Scene, ...]:
    """One family, its first scene drawn afresh and each other one change away from a scene before it."""
    for _ in range(_ATTEMPTS):
      scene = _sample_scene(rng)
      kinds = frozenset(group.kind for group in scene.groups)
      first = None if kinds in self._kinds else self._new(scene, rng)
      if first is None:
        continue
      family = [first]
      for _ in range(_ATTEMPTS):
        if len(family) == size:
          break
        changed = _choose(_CHANGES, rng, _CHANGE_WEIGHTS)(_choose(family, rng), rng)
        if changed is not None and (changed := self._new(changed, rng)):
          family.append(changed)
      if len(family) == size:
        self._kinds.add(kinds)
        return tuple(family)
    raise UserError(f'the demo catalogue has no more new scenes after {len(self._facts)}: ask for fewer pictures')

  def _new(self, scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The scene put into its picture and remembered, or None if it does not fit, is too full, or was there before."""
    if not 2 <= sum(group.count for group in scene.groups) <= MAX_OBJECTS:
      return None
    # The draft is compared too: a few pixels of jitter can change a fact ('in the middle') but make no new scene.
    draft = replace(scene, pieces=(), variant=0)
    placed = None if draft in self._drafts else _place(scene, rng)
    if placed is None or facts(placed) in self._facts:
      return None
    self._drafts.add(draft)
    self._facts.add(facts(placed))
    return placed
