"""A small grammar of English that says true things about a scene, a few of them at a time.

Each caption comes with the facts it states, so that nobody has to parse it to know whether it is true.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from hrem_jax.data.demo.catalogue import BACKGROUNDS
from hrem_jax.data.demo.scenes import Fact, Group, Scene, facts
from hrem_jax.data.demo.speaker import Speaker, be

_ATTEMPTS = 60  # captions drawn before one that breaks a wish is taken
_DISTINGUISHING = 0.85  # share of the captions that must tell their picture from its whole family

# How many kinds of a scene a caption mentions: chances of one, two, three, four.
_NUM_MENTIONED = {2: (0.07, 0.93), 3: (0.02, 0.33, 0.65), 4: (0.0, 0.15, 0.4, 0.45)}


class Caption(NamedTuple):
  """One sentence and the facts it states."""

  text: str
  facts: frozenset[Fact]


def _say_list(speaker: Speaker, groups: Sequence[Group]) -> str:
  """'there is a dog and a red car on the grass', 'a beach with two bananas', ..."""
  background = BACKGROUNDS[speaker.scene.background]
  form = speaker.rng.choice(6, p=(0.34, 0.22, 0.1, 0.1, 0.12, 0.12))
  if form >= 4:
    speaker.used.add(('background', speaker.scene.background))
  series = speaker.series(groups)
  match form:
    case 0:
      return series + speaker.background(0.6)
    case 1:
      return f'there {be(groups[0])} {series}' + speaker.background(0.5)
    case 2:
      return f'{speaker.pick(("a picture of", "a drawing of", "an image of"))} {series}' + speaker.background(0.4)
    case 3:
      return f'{speaker.pick(("we see", "you can see", "we can see"))} {series}' + speaker.background(0.5)
    case 4:
      return f'{background.noun} with {series}'
    case _:
      return f'{speaker.pick(background.phrases)} there {be(groups[0])} {series}'


def _say_relation(speaker: Speaker, groups: Sequence[Group]) -> str | None:
  """'a dog to the left of a red car, with two bananas below the car'."""
  if len(groups) < 2 or not (relation := speaker.relation(groups[0], groups[1])):
    return None
  one, other, *rest = groups
  verb = f'{be(one)} ' if speaker.chance(0.35) else ''
  opening = f'there {be(one)} ' if not verb and speaker.chance(0.25) else ''
  text = f'{opening}{speaker.noun(one)} {verb}{relation} {speaker.noun(other)}'
  if len(rest) == 1 and speaker.chance(0.75):
    anchor = speaker.pick((one, other))
    if relation := speaker.relation(rest[0], anchor):
      return f'{text}, with {speaker.noun(rest[0])} {relation} {speaker.the(anchor)}'
  if rest:
    return f'{text}, {speaker.pick(("and", "with", "plus"))} {speaker.series(rest)}' + speaker.background(0.3)
  return text + speaker.background(0.4)


def _say_between(speaker: Speaker, groups: Sequence[Group]) -> str | None:
  """'a dog between two bananas and a red car'."""
  if len(groups) != 3:
    return None
  orders = [order for order in permutations(groups) if ('between', *(group.kind for group in order)) in speaker.true]
  if not orders:
    return None
  one, *others = speaker.pick(orders)
  speaker.used.add(('between', *(group.kind for group in (one, *others))))
  verb = f'{be(one)} ' if speaker.chance(0.3) else ''
  return f'{speaker.noun(one)} {verb}between {speaker.series(others)}' + speaker.background(0.4)


def _say_place(speaker: Speaker, groups: Sequence[Group]) -> str | None:
  """'a dog on the left and a red car in the bottom right corner, with two bananas'."""
  placed = [(group, place) for group in groups[:2] if (place := speaker.place(group))]
  if not placed:
    return None
  rest = [group for group in groups if group not in [group for group, _ in placed]]
  parts = []
  for group, place in placed:
    noun = speaker.noun(group)
    if not parts and speaker.chance(0.25):
      parts.append(f'{place} there {be(group)} {noun}' if speaker.chance(0.5) else f'{place} {noun}')
    else:
      parts.append(f'{noun} {place}')
  if rest:
    return f'{" and ".join(parts)}, with {speaker.series(rest)}' + speaker.background(0.15)
  return speaker.pick((' and ', ' and ', ' with ')).join(parts) + speaker.background(0.15)


def _say_property(speaker: Speaker, groups: Sequence[Group]) -> str | None:
  """'a dog and two cars, the cars are red'."""
  # Two sizes are rarely there to compare, so the chance is taken.
  found = speaker.comparisons(groups) or speaker.properties(groups)
  if not found:
    return None
  fact, clause = speaker.pick(found)
  speaker.used.add(fact)
  background = speaker.background(0.3)
  return f'{speaker.series(groups, is_plain=True)}{background}{speaker.pick((", ", " and ", ", and "))}{clause}'


_FORMS = (_say_list, _say_relation, _say_between, _say_place, _say_property)
_FORM_WEIGHTS = (0.34, 0.32, 0.08, 0.16, 0.1)


def say(scene: Scene, rng: np.random.Generator) -> Caption:
  """One caption that is true of a scene; it mentions most of the objects and some of the facts."""
  chances = _NUM_MENTIONED[len(scene.groups)]
  num_mentioned = 1 + int(rng.choice(len(chances), p=chances))
  groups = [scene.groups[number] for number in rng.permutation(len(scene.groups))[:num_mentioned]]
  form = _FORMS[rng.choice(len(_FORMS), p=_FORM_WEIGHTS)]
  speaker = Speaker(scene, rng)
  text = form(speaker, groups)
  if text is None:  # nothing of the kind can be said of these objects
    speaker = Speaker(scene, rng)
    text = _say_list(speaker, groups)
  return Caption(text, frozenset(speaker.used))


def is_distinguishing(caption: Caption, others: Sequence[Scene]) -> bool:
  """Whether the caption is false of each of the other scenes."""
  return not any(caption.facts <= facts(other) for other in others)


def describe(
  scene: Scene, others: Sequence[Scene], taken: set[str], rng: np.random.Generator, num_captions: int = 5
) -> list[Caption]:
  """Different captions of one scene.

  Args:
    scene: what the captions are about.
    others: the scenes they may be mistaken for; most captions are false of all of them, as not all are of people's.
    taken: texts that were said before, avoided as long as that is possible; the new texts are added.
    rng: source of everything.
    num_captions: how many.
  """
  captions = []
  for _ in range(num_captions):
    rivals = others if rng.random() < _DISTINGUISHING else ()
    caption = _say_new(scene, rivals, taken, rng)
    taken.add(caption.text)
    captions.append(caption)
  return captions


def _say_new(scene: Scene, rivals: Sequence[Scene], taken: set[str], rng: np.random.Generator) -> Caption:
  """A caption that was not said before and is false of the rivals; if none turns up, a new one; at worst an old one."""
  caption = say(scene, rng)
  for _ in range(_ATTEMPTS):
    draft = say(scene, rng)
    if draft.text not in taken:
      caption = draft
      if is_distinguishing(draft, rivals):
        break
  return caption
