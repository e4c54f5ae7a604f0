"""The parts a caption is made of: nouns with their adjectives, relations, places, backgrounds, clauses.

Every part that is said leaves the facts it states in `Speaker.used`.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from hrem_jax.data.demo.catalogue import BACKGROUNDS, KINDS, SIZE_WORDS
from hrem_jax.data.demo.scenes import Fact, Group, Scene, facts

# 'A ... B' for a fact (name, A, B), and for the fact the other way round.
_RELATIONS = {
  'left': ('to the left of', 'on the left of', 'left of'),
  'above': ('above', 'over'),
  'near': ('next to', 'beside', 'near'),
}
_CONVERSES = {
  'left': ('to the right of', 'on the right of', 'right of'),
  'above': ('below', 'under', 'beneath'),
  'near': ('next to', 'beside', 'near'),
}
_PLACES = {
  'left': ('on the left', 'on the left side'),
  'right': ('on the right', 'on the right side'),
  'top': ('at the top',),
  'bottom': ('at the bottom',),
  'middle': ('in the middle', 'in the center'),
}


class Speaker:
  """Says parts of one caption and notes which facts it used. Sticks to one name for each kind."""

  def __init__(self, scene: Scene, rng: np.random.Generator):
    self.scene, self.rng, self.true = scene, rng, facts(scene)
    self.used: set[Fact] = set()
    # The usual name most of the time: synonyms are what makes the captions human, not what makes them hard.
    self._names = {
      group.kind: KINDS[group.kind].names[0] if self.chance(0.6) else self.pick(KINDS[group.kind].names)
      for group in scene.groups
    }

  def chance(self, probability: float) -> bool:
    """True with the given probability."""
    return bool(self.rng.random() < probability)

  def pick(self, options: Sequence):
    """One of the options, all equally likely."""
    return options[self.rng.integers(len(options))]

  def noun(self, group: Group, *, is_plain: bool = False) -> str:
    """'a small red car', 'two bananas'; without adjectives if `is_plain`."""
    self.used |= {('object', group.kind)}
    words = []
    if not is_plain and group.size in SIZE_WORDS and self.chance(0.6):
      words.append(self._size(group))
    if not is_plain and group.colour and self.chance(0.75):
      words.append(self._colour(group))
    words.append(self._names[group.kind][group.count > 1])
    return ' '.join([self._determiner(group, words[0]), *words])

  def _determiner(self, group: Group, next_word: str) -> str:
    """'a', 'one', 'three', 'some', ..."""
    if group.count > 1 and self.chance(0.12):
      self.used.add(('several', group.kind))
      return 'some'
    self.used.add(('count', group.kind, group.count))
    if group.count > 1:
      # 'a couple of pairs of scissors' would be one 'of' too many.
      is_couple = group.count == 2 and ' of ' not in self._names[group.kind][1] and self.chance(0.2)
      return 'a couple of' if is_couple else {2: 'two', 3: 'three'}[group.count]
    if self.chance(0.04):
      return 'one'
    return 'an' if next_word[0] in 'aeiou' else 'a'

  def _size(self, group: Group) -> str:
    self.used.add(('size', group.kind, group.size))
    return self.pick(SIZE_WORDS[group.size])

  def _colour(self, group: Group) -> str:
    self.used.add(('colour', group.kind, group.colour))
    return group.colour

  def the(self, group: Group) -> str:
    """'the car': for what was mentioned before."""
    return f'the {self._names[group.kind][group.count > 1]}'

  def series(self, groups: Sequence[Group], *, is_plain: bool = False) -> str:
    """'a dog', 'a dog and a car', 'a dog, a car and two bananas'."""
    nouns = [self.noun(group, is_plain=is_plain) for group in groups]
    return ' and '.join([', '.join(nouns[:-1]), nouns[-1]]) if len(nouns) > 1 else nouns[0]

  def background(self, probability: float) -> str:
    """' on the grass' with the given probability, else nothing."""
    if not self.chance(probability):
      return ''
    self.used.add(('background', self.scene.background))
    return f' {self.pick(BACKGROUNDS[self.scene.background].phrases)}'

  def relation(self, one: Group, other: Group) -> str | None:
    """'to the left of', ...: something true between `one` and `other`, or None."""
    options = [
      ((name, *kinds), phrases[name])
      for kinds, phrases in (((one.kind, other.kind), _RELATIONS), ((other.kind, one.kind), _CONVERSES))
      for name in ('left', 'above', 'near')
      if (name, *kinds) in self.true
    ]
    # 'next to' says less than 'left of', so it is the rarer choice.
    options = [option for option in options if option[0][0] != 'near' or self.chance(0.35)] or options
    if not options:
      return None
    fact, phrases = self.pick(options)
    self.used.add(fact)
    return self.pick(phrases)

  def place(self, group: Group) -> str | None:
    """'in the top left corner', ..., or None where it is hard to say."""
    places = [fact[2] for fact in self.true if fact[:2] == ('place', group.kind)]
    if not places:
      return None
    self.used.add(('place', group.kind, places[0]))
    if places[0] in _PLACES:
      return self.pick(_PLACES[places[0]])
    return f'{self.pick(("in", "at"))} the {places[0]}' if self.chance(0.3) else f'in the {places[0]} corner'

  def properties(self, groups: Sequence[Group]) -> list[tuple[Fact, str]]:
    """All that can be said by a clause: 'the car is red', 'the dogs are small'."""
    found = []
    for group in groups:
      if group.colour:
        found.append((('colour', group.kind, group.colour), f'{self.the(group)} {be(group)} {group.colour}'))
      if group.size in SIZE_WORDS:
        size = self.pick(SIZE_WORDS[group.size])
        found.append((('size', group.kind, group.size), f'{self.the(group)} {be(group)} {size}'))
    return found

  def comparisons(self, groups: Sequence[Group]) -> list[tuple[Fact, str]]:
    """All that can be said of two sizes: 'the dog is bigger than the car'."""
    found = []
    for one, other in permutations(groups, 2):
      if (fact := ('larger', one.kind, other.kind)) in self.true:
        larger = f'{self.the(one)} is {self.pick(("bigger", "larger"))} than {self.the(other)}'
        found.append((fact, self.pick((larger, f'{self.the(other)} is smaller than {self.the(one)}'))))
    return found


def be(group: Group) -> str:
  return 'are' if group.count > 1 else 'is'
