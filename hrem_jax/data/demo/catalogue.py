"""What the demo pictures are made of: kinds of objects, colours, sizes, backgrounds, and the words for them.

Nothing here computes: the other files of this package read these tables and never name an object themselves.
"""

from typing import NamedTuple


class Kind(NamedTuple):
  """One kind of object.

  Attributes:
    code: OpenMoji's code point in hexadecimal, which is also the name of its SVG file.
    names: (singular, plural) pairs, the usual name first, then synonyms.
    fills: the hexadecimal fills that carry the object's colour, the light tone first, then the dark tone if there is
      one. Empty where another colour would be silly (a blue banana) or would not show.
  """

  code: str
  names: tuple[tuple[str, str], ...]
  fills: tuple[str, ...] = ()


def _kind(code: str, names: str, fills: str = '') -> Kind:
  """A Kind from `singular/plural` words, underscores for the blanks inside a name."""
  pairs = tuple(tuple(pair.replace('_', ' ').split('/')) for pair in names.split())
  return Kind(code, pairs, tuple(fills.split()))


KINDS: dict[str, Kind] = {
  kind.names[0][0]: kind
  for kind in (
    # Objects that come in every colour.
    _kind('1F697', 'car/cars automobile/automobiles', 'ea5a47'),
    _kind('1F6FB', 'truck/trucks pickup/pickups', 'd22f27'),
    _kind('1F68C', 'bus/buses coach/coaches', 'ea5a47'),
    _kind('1F681', 'helicopter/helicopters chopper/choppers', 'ea5a47'),
    _kind('1F6F6', 'canoe/canoes rowing_boat/rowing_boats', '61b2e4'),
    _kind('1F388', 'balloon/balloons', 'ea5a47 d22f27'),
    _kind('2602', 'umbrella/umbrellas parasol/parasols', 'b399c8 8967aa'),
    _kind('1FA81', 'kite/kites', 'ffa7c0 e67a94'),
    _kind('1F455', 'shirt/shirts polo_shirt/polo_shirts', '61b2e4 92d3f5'),
    _kind('1F457', 'dress/dresses gown/gowns', '61b2e4'),
    _kind('1F460', 'shoe/shoes high_heel/high_heels', 'd22f27'),
    _kind('1F9E3', 'scarf/scarves', 'ea5a47 d22f27'),
    _kind('1F392', 'backpack/backpacks rucksack/rucksacks', 'ea5a47 d22f27'),
    _kind('1F4D5', 'book/books', 'd22f27'),
    _kind('1FAA3', 'bucket/buckets pail/pails', '92d3f5 61b2e4'),
    _kind('1FA91', 'chair/chairs', 'fcea2b f1b31c'),
    _kind('260E', 'telephone/telephones phone/phones', 'ea5a47 d22f27'),
    _kind('1F3B8', 'guitar/guitars', 'ea5a47'),
    _kind('1F941', 'drum/drums', 'ea5a47 d22f27'),
    _kind('1F98B', 'butterfly/butterflies', '92d3f5'),
    _kind('1F41F', 'fish/fish', '92d3f5 61b2e4'),
    _kind('1F337', 'tulip/tulips', 'f4aa41 e27022'),
    _kind('1F344', 'mushroom/mushrooms toadstool/toadstools', 'ea5a47 d22f27'),
    _kind('1F36C', 'candy/candies sweet/sweets', 'b1cc33 5c9e31'),
    _kind('2B50', 'star/stars', 'fcea2b'),
    # Objects that keep the colours they have.
    _kind('1F415', 'dog/dogs puppy/puppies'),
    _kind('1F408', 'cat/cats kitten/kittens'),
    _kind('1F404', 'cow/cows calf/calves'),
    _kind('1F416', 'pig/pigs piglet/piglets'),
    _kind('1F430', 'rabbit/rabbits bunny/bunnies'),
    _kind('1F427', 'penguin/penguins'),
    _kind('1F422', 'turtle/turtles tortoise/tortoises'),
    _kind('1F989', 'owl/owls'),
    _kind('1F986', 'duck/ducks mallard/mallards'),
    _kind('1F418', 'elephant/elephants'),
    _kind('1F419', 'octopus/octopuses'),
    _kind('1F433', 'whale/whales'),
    _kind('1F980', 'crab/crabs'),
    _kind('1F438', 'frog/frogs toad/toads'),
    _kind('1F43C', 'panda/pandas panda_bear/panda_bears'),
    _kind('1F41E', 'ladybug/ladybugs beetle/beetles'),
    _kind('1F34C', 'banana/bananas'),
    _kind('1F34E', 'apple/apples'),
    _kind('1F349', 'watermelon/watermelons slice_of_melon/slices_of_melon'),
    _kind('1F347', 'bunch_of_grapes/bunches_of_grapes'),
    _kind('1F955', 'carrot/carrots'),
    _kind('1F34D', 'pineapple/pineapples'),
    _kind('1F355', 'pizza/pizzas slice_of_pizza/slices_of_pizza'),
    _kind('1F354', 'hamburger/hamburgers burger/burgers'),
    _kind('1F382', 'cake/cakes birthday_cake/birthday_cakes'),
    _kind('1F682', 'train/trains locomotive/locomotives'),
    _kind('2708', 'airplane/airplanes plane/planes'),
    _kind('1F680', 'rocket/rockets spaceship/spaceships'),
    _kind('1F6B2', 'bicycle/bicycles bike/bikes'),
    _kind('1F528', 'hammer/hammers'),
    _kind('2702', 'pair_of_scissors/pairs_of_scissors'),
    _kind('1F511', 'key/keys'),
    _kind('23F0', 'clock/clocks alarm_clock/alarm_clocks'),
    _kind('1F4F7', 'camera/cameras'),
    _kind('26BD', 'soccer_ball/soccer_balls football/footballs'),
    _kind('1F3C0', 'basketball/basketballs'),
    _kind('1F335', 'cactus/cactuses'),
  )
}

# Light and dark tone of each colour: OpenMoji's palette, purple and pink a little stronger so that nobody has to guess.
COLOURS: dict[str, tuple[str, str]] = {
  'red': ('e8452f', 'c0241b'),
  'blue': ('4a9ee8', '2567b8'),
  'green': ('5fb53c', '3a8526'),
  'yellow': ('fce02b', 'f1b31c'),
  'purple': ('9a63c9', '70409f'),
  'pink': ('ff9fc4', 'e6699b'),
}

# Longest side of an object in pixels of the 224 x 224 picture; the gaps between the sizes keep the words true.
SIZES: dict[str, tuple[int, int]] = {'small': (42, 46), 'medium': (60, 64), 'large': (90, 96)}
SIZE_WORDS: dict[str, tuple[str, ...]] = {'small': ('small', 'little', 'tiny'), 'large': ('large', 'big', 'huge')}


class Background(NamedTuple):
  """One background.

  Attributes:
    phrases: what may follow 'two bananas', e.g. 'on the grass'.
    noun: what may stand before 'with two bananas', e.g. 'a meadow'.
    top, bottom: hexadecimal colours of the strip above the horizon and of the ground.
    texture: how the ground is strewn: 'blades', 'dots', 'waves', 'stars', 'planks', 'lanes' or 'plain'.
  """

  phrases: tuple[str, ...]
  noun: str
  top: str
  bottom: str
  texture: str


BACKGROUNDS: dict[str, Background] = {
  'grass': Background(('on the grass', 'in a field', 'on a lawn'), 'a meadow', 'cdeaf8', 'b9dd8b', 'blades'),
  'sand': Background(('on the sand', 'at the beach', 'on a sandy beach'), 'a beach', 'bfe6f5', 'f3dfae', 'dots'),
  'sea': Background(('on the water', 'at sea', 'on the ocean'), 'a sea', 'e3f3fa', '8fc9e6', 'waves'),
  'snow': Background(('in the snow', 'on the snow'), 'a snowy field', 'c3d3e6', 'f4f8fc', 'dots'),
  'night': Background(('at night', 'under the stars', 'in the dark'), 'a starry night', '25305e', '323f74', 'stars'),
  'sunset': Background(('at sunset', 'in the evening'), 'a sunset', 'f7a072', 'f9d3b4', 'plain'),
  'room': Background(('in a room', 'on a wooden floor', 'indoors'), 'a room', 'efe6da', 'd9b48a', 'planks'),
  'road': Background(('on the road', 'on the street'), 'a street', 'd5dde2', '9da3a9', 'lanes'),
}
