"""Where the objects of a demo picture stand: rows of blocks that never overlap. Pure geometry, in pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PICTURE_SIZE = 224  # pixels, width and height of every picture

Rows = tuple[tuple[int | None, ...], ...]
Block = tuple[float, float, float, float]  # x1, y1, x2, y2

_ROW, _COLUMN = ((0, 1),), ((0,), (1,))

# The layouts of two, three and four groups: group numbers row by row; None is an empty cell, which pushes its neighbour
# into a corner. Drawn with equal chances, so what stands here twice comes twice as often.
LAYOUTS: dict[int, tuple[Rows, ...]] = {
  2: (_ROW, _ROW, _COLUMN, _COLUMN, ((0, None), (None, 1)), ((None, 0), (1, None))),
  3: (((0, 1, 2),), ((0,), (1,), (2,)), ((0,), (1, 2)), ((0, 1), (2,))),
  4: (((0, 1), (2, 3)),),
}

# How one to three objects of a kind stand together: the number of objects in each row of their block.
_FORMATIONS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((1,),), 2: ((2,), (1, 1)), 3: ((3,), (1, 1, 1), (1, 2))}

# Objects stay inside this box. It starts below the horizon's strip, so that they stand on the ground, not in the sky.
_AREA: Block = (8, 16, PICTURE_SIZE - 8, PICTURE_SIZE - 8)
_GAP = 5  # pixels between two objects, at least
_EMPTY_CELL = 72  # pixels, width of a None in LAYOUTS


class Piece(NamedTuple):
  """One object of a picture: a square that holds it, and how it is turned.

  Attributes:
    group: the number of its group in the scene.
    x, y: the centre in pixels.
    side: the length of the square's side in pixels.
    tilt: degrees, counter-clockwise.
    mirrored: whether left and right are exchanged.
  """

  group: int
  x: float
  y: float
  side: int
  tilt: int
  mirrored: bool


def _spread(lengths: Sequence[float], start: float, end: float, rng: np.random.Generator) -> list[float] | None:
  """Starts of intervals laid from start to end in order, the slack shared at random; None if they do not fit."""
  slack = end - start - sum(lengths) - _GAP * (len(lengths) - 1)
  if slack < 0:
    return None
  shares = rng.uniform(0.5, 1.5, len(lengths) + 1)
  gaps = slack * shares / shares.sum()
  starts, position = [], start
  for gap, length in zip(gaps, lengths, strict=False):
    position += gap
    starts.append(position)
    position += length + _GAP
  return starts


def _extent(formation: tuple[int, ...], side: int) -> tuple[float, float]:
  """Width and height in pixels of a block."""
  return max(formation) * (side + _GAP) - _GAP, len(formation) * (side + _GAP) - _GAP


def _pieces(group: int, formation: tuple[int, ...], side: int, x: float, y: float, rng: np.random.Generator):
  """Yields the pieces of one block whose centre is (x, y); a short row is centred."""
  step = side + _GAP
  for row, count in enumerate(formation):
    for column in range(count):
      yield Piece(
        group=group,
        x=round(x + (column - (count - 1) / 2) * step, 1),
        y=round(y + (row - (len(formation) - 1) / 2) * step, 1),
        side=side,
        tilt=int(rng.choice((-8, 0, 0, 8))),
        mirrored=bool(rng.integers(2)),
      )


def arrange(
  rows: Rows, counts: Sequence[int], sides: Sequence[int], rng: np.random.Generator
) -> tuple[Piece, ...] | None:
  """Places every group of a scene.

  Args:
    rows: one of LAYOUTS.
    counts: number of objects of each group.
    sides: longest side in pixels of the objects of each group.
    rng: source of the formations, the shared slack and the turns.

  Returns:
    The pieces in the order of the rows, or None if the formations drawn this time do not fit into the picture.
  """
  formations = [_FORMATIONS[count][rng.integers(len(_FORMATIONS[count]))] for count in counts]
  extents = [_extent(formation, side) for formation, side in zip(formations, sides, strict=True)]
  left, top, right, bottom = _AREA
  heights = [max(extents[cell][1] for cell in row if cell is not None) for row in rows]
  tops = _spread(heights, top, bottom, rng)
  if tops is None:
    return None
  pieces: list[Piece] = []
  for row, row_top, height in zip(rows, tops, heights, strict=True):
    widths = [_EMPTY_CELL if cell is None else extents[cell][0] for cell in row]
    lefts = _spread(widths, left, right, rng)
    if lefts is None:
      return None
    for cell, cell_left, width in zip(row, lefts, widths, strict=True):
      if cell is not None:
        # A low block need not stand exactly on the middle line of a high row.
        shift = rng.uniform(-0.3, 0.3) * (height - extents[cell][1])
        pieces.extend(
          _pieces(cell, formations[cell], sides[cell], cell_left + width / 2, row_top + height / 2 + shift, rng)
        )
  return tuple(pieces)


def block_of(pieces: Sequence[Piece], group: int) -> Block:
  """The box x1, y1, x2, y2 in pixels around the pieces of one group."""
  own = [piece for piece in pieces if piece.group == group]
  return (
    min(piece.x - piece.side / 2 for piece in own),
    min(piece.y - piece.side / 2 for piece in own),
    max(piece.x + piece.side / 2 for piece in own),
    max(piece.y + piece.side / 2 for piece in own),
  )


def is_left_of(one: Block, other: Block) -> bool:
  """Whether everybody would say so: `one` ends before `other` starts, and they are apart sideways most of all."""
  across, down = _offset(one, other)
  return one[2] <= other[0] and abs(down) < 0.7 * across


def is_above(one: Block, other: Block) -> bool:
  """Whether everybody would say so: `one` ends before `other` starts, and they are apart vertically most of all."""
  across, down = _offset(one, other)
  return one[3] <= other[1] and abs(across) < 0.7 * down


def is_near(one: Block, other: Block) -> bool:
  """Whether two blocks stand side by side with little between them."""
  gap = max(one[0], other[0]) - min(one[2], other[2])
  return (is_left_of(one, other) or is_left_of(other, one)) and gap < 0.25 * PICTURE_SIZE


def _offset(one: Block, other: Block) -> tuple[float, float]:
  """From the centre of `one` to the centre of `other`, in pixels to the right and down."""
  return (other[0] + other[2] - one[0] - one[2]) / 2, (other[1] + other[3] - one[1] - one[3]) / 2


def place_of(block: Block) -> str | None:
  """'top left', 'left', 'middle' and so on, or None where people would not agree."""
  x, y = (block[0] + block[2]) / 2 / PICTURE_SIZE, (block[1] + block[3]) / 2 / PICTURE_SIZE
  across = 'left' if x < 0.37 else 'right' if x > 0.63 else ''
  down = 'top' if y < 0.38 else 'bottom' if y > 0.66 else ''
  is_corner = across and down and max(block[2] - block[0], block[3] - block[1]) <= PICTURE_SIZE / 2
  if is_corner:
    return f'{down} {across}'
  if across and down:
    return None
  if across or down:
    # 'on the left' is true only of what leaves the other half free.
    is_wide = (block[2] - block[0] if across else block[3] - block[1]) > 0.6 * PICTURE_SIZE
    return None if is_wide else across or down
  return 'middle' if abs(x - 0.5) < 0.1 and abs(y - 0.5) < 0.12 else None
