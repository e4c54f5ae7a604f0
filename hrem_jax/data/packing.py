"""The captions of a batch in as few rows as they need, on the host (`hrem_jax.ops.packing` says what for)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from hrem_jax.ops.packing import Packing


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where captions go; `g` groups of equally many captions and rows."""

  starts: Int[np.ndarray, 'g c']  # of each caption in the flattened rows of its group
  num_rows: int  # of each group
  row_width: int

  def part(self, index: int, count: int) -> 'Layout':
    """The groups of one of `count` processes."""
    return dataclasses.replace(self, starts=np.split(self.starts, count)[index])


def lay_out(lengths: Int[np.ndarray, ' t'], *, num_groups: int, row_width: int, min_rows: int = 1) -> Layout:
  """Places whole captions, each group's in rows of its own.

  Args:
    lengths: Of all captions of the global batch, none above `row_width`: every process comes to the same shapes.
    num_groups: Divides the number of captions; consecutive captions form a group.
    row_width: Words in a row.
    min_rows: Of each group; more where that does not do.
  """
  placed = [_first_fit(group, row_width) for group in lengths.reshape(num_groups, -1)]
  num_rows = max(min_rows, *(int(starts.max()) // row_width + 1 for starts in placed))
  return Layout(np.stack(placed), round_up(num_rows), row_width)


def balanced_order(lengths: Int[np.ndarray, ' t'], num_groups: int) -> Int[np.ndarray, ' t']:
  """An order of captions in which `num_groups` runs of equally many have nearly equally many words.

  Captions are dealt out longest first, forwards and backwards in turn. Few captions differ much in their sum, and every
  group would have to have the rows of the longest one.
  """
  if num_groups == 1:
    return np.arange(len(lengths))
  dealt = np.argsort(-lengths, kind='stable').reshape(-1, num_groups)
  dealt[1::2] = dealt[1::2, ::-1]
  return dealt.T.ravel()


def usual_rows(lengths: Int[np.ndarray, ' n'], num_captions: int, row_width: int, *, num_groups: int = 1) -> int:
  """Rows of a group in which nearly any batch of `num_captions` of these captions fits, if it is balanced.

  With them as the minimum nearly all batches have one shape.
  """
  words = num_captions * lengths.mean() + 3 * num_captions**0.5 * lengths.std()
  return int(np.ceil(words / num_groups / row_width))


def _first_fit(lengths: Int[np.ndarray, ' c'], row_width: int) -> Int[np.ndarray, ' c']:
  """The start of each caption: longest first, into the first row that has room for it."""
  starts, free = np.zeros(len(lengths), np.int32), np.full(len(lengths), row_width)
  for caption in np.argsort(-lengths, kind='stable'):
    row = np.argmax(free >= lengths[caption])
    starts[caption] = (row + 1) * row_width - free[row]
    free[row] -= lengths[caption]
  return starts


def round_up(count: int) -> int:
  """The next multiple of an eighth of the power of two below: few numbers of rows, few programs to compile."""
  step = max(2 ** (count.bit_length() - 1) // 8, 1)
  return -(-count // step) * step


def pack_rows(
  tokens: Int[np.ndarray, 't w'], mask: Bool[np.ndarray, 't w'], layout: Layout, *, pad: int
) -> tuple[Int[np.ndarray, 'p l'], Bool[np.ndarray, 'p l'], Packing]:
  """Moves captions, one per row, to their places.

  Args:
    tokens, mask: The captions of the layout's groups, not longer than they were for `lay_out`: augmentation may have
      shortened them.
    layout: From `lay_out`.
    pad: The token of padding.

  Returns:
    Tokens and mask of the packed rows, and how to unpack what becomes of them.
  """
  (num_groups, num_captions), width = layout.starts.shape, tokens.shape[1]
  group_size = layout.num_rows * layout.row_width
  mask = mask.reshape(num_groups, num_captions, width)
  index = np.where(mask, layout.starts[..., None] + np.arange(width, dtype=np.int32), group_size)
  groups = np.arange(num_groups)[:, None, None]
  places = np.broadcast_to(groups, mask.shape)[mask], index[mask]

  def rows(words: np.ndarray, padding) -> np.ndarray:
    packed = np.full((num_groups, group_size), padding, words.dtype)
    packed[places] = np.broadcast_to(words, mask.shape)[mask]
    return packed.reshape(-1, layout.row_width)

  packing = Packing(
    captions=rows(np.arange(num_captions, dtype=np.int32)[:, None], -1),
    positions=rows(np.arange(width, dtype=np.int32), 0),
    index=index.astype(np.int32),
    mask=mask,
  )
  return rows(tokens.reshape(mask.shape), pad), packing.captions >= 0, packing
