"""Work on texts of many lengths, a few of nearly equal length at a time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


class Tiling(NamedTuple):
  """`block_size` texts at a time, each block cut to one of `num_widths` widths: each is a program of its own."""

  block_size: int
  num_widths: int


# No work on padding; time does not depend much on the block's size, memory does.
CPU = Tiling(block_size=8, num_widths=14)
# A choice made as it runs waits for the host: few large blocks in few widths beat the last padding saved, and every
# program more costs seconds to compile.
ACCELERATOR = Tiling(block_size=32, num_widths=3)


def map_text_blocks(
  function: Callable[..., PyTree],
  words: Float[Array, 't w d'],
  mask: Bool[Array, 't w'],
  *others: Array,
  tiling: Tiling,
) -> PyTree:
  """`function(words, mask, *others)` for some texts at a time, with gradients, in the memory of one block.

  Texts are sorted by length, and `words` and `mask` of a block are cut to its longest text: padding costs next to
  nothing. The backward pass computes each block again.

  Args:
    function: Arrays `[b, v, d]`, `[b, v]` and `[b, ...]` to a tree of arrays `[b, ...]`. A text's result must depend
      neither on the other texts of the block nor on its padding.
    words: Fragments.
    mask: True for real ones.
    others: `[t, ...]`: what else belongs to each text; not cut.
    tiling: How texts are cut into blocks.

  Returns:
    The results, `[t, ...]`.
  """
  num_texts, max_width = mask.shape
  used = jnp.max(jnp.where(mask, jnp.arange(1, max_width + 1), 0), axis=1)  # width that a text needs
  block_size = min(tiling.block_size, num_texts)
  num_blocks = -(-num_texts // block_size)
  order = jnp.argsort(used)
  # The last block is filled up with texts that it, or another one, has already.
  blocks = jnp.resize(order, (num_blocks, block_size))

  def run(width: int, words, mask, *others):
    return function(words[:, :width], mask[:, :width], *others)

  step = -(-max_width // tiling.num_widths)
  widths = [min(width, max_width) for width in range(step, max_width + step, step)]
  # Each width by itself, and the choice among them, too: else what each program's backward pass needs would be stored
  # for all of them, and of every block.
  programs = [jax.checkpoint(functools.partial(run, width)) for width in widths]

  @jax.checkpoint
  def run_narrow(block):
    return jax.lax.switch((jnp.max(used[block]) - 1) // step, programs, *(x[block] for x in (words, mask, *others)))

  by_length = jax.lax.map(run_narrow, blocks)
  place = jnp.argsort(order)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[place], by_length)


def on_this_platform(function: Callable[[Tiling], PyTree], tiling: Tiling | None) -> PyTree:
  """`function(tiling)`; None takes the one of the platform that the program is compiled for."""
  if tiling is not None:
    return function(tiling)
  return jax.lax.platform_dependent(cpu=lambda: function(CPU), default=lambda: function(ACCELERATOR))
