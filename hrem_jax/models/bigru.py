"""Word embeddings and one bidirectional GRU layer (METHOD section 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hrem_jax.models.start_values import uniform
from hrem_jax.ops.packing import Packing, caption_starts


class Gru(nn.Module):
  """One direction; the state passes padding unchanged, so padding anywhere has no effect on real words.

  In packed rows every caption starts from zero, as it does in a row of its own.

  Gates in the order reset, update, candidate; the candidate's recurrent bias stands inside the reset gate.
  """

  hidden_size: int
  reverse: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 't w f'], mask: Bool[Array, 't w'], *, packing: Packing | None = None
  ) -> Float[Array, 't w h']:
    size = self.hidden_size
    start = uniform(size**-0.5)  # PyTorch's, of the input's part, too
    # The input's part of the gates is one product for all words, outside the recurrence.
    inputs = nn.Dense(3 * size, kernel_init=start, bias_init=start, dtype=self.dtype, name='input')(x)
    kernel = self.param('recurrent_kernel', start, (size, 3 * size)).astype(self.dtype)
    bias = self.param('recurrent_bias', start, (3 * size,)).astype(self.dtype)

    def step(state, word):
      inputs, mask, is_start = word
      state = state if is_start is None else jnp.where(is_start[:, None], 0.0, state)
      recurrent = state @ kernel + bias
      input_reset, input_update, input_candidate = jnp.split(inputs, 3, axis=-1)
      state_reset, state_update, state_candidate = jnp.split(recurrent, 3, axis=-1)
      reset = jax.nn.sigmoid(input_reset + state_reset)
      update = jax.nn.sigmoid(input_update + state_update)
      candidate = jnp.tanh(input_candidate + reset * state_candidate)
      state = jnp.where(mask[:, None], (1 - update) * candidate + update * state, state)
      return state, state

    starts = None if packing is None else caption_starts(packing, reverse=self.reverse).T
    words_first = (jnp.swapaxes(inputs, 0, 1), mask.T, starts)
    first = jnp.zeros((len(x), size), inputs.dtype)
    _, states = jax.lax.scan(step, first, words_first, reverse=self.reverse)
    return jnp.swapaxes(states, 0, 1)


class BiGru(nn.Module):
  """Tokens to states: the mean of the two directions."""

  vocab_size: int
  word_size: int
  hidden_size: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: Int[Array, 't w'], mask: Bool[Array, 't w'], *, packing: Packing | None = None, train: bool = False
  ) -> Float[Array, 't w h']:
    del train  # nothing here differs in training
    x = self.param('word_embeddings', uniform(0.1), (self.vocab_size, self.word_size))[tokens]
    forward = Gru(self.hidden_size, dtype=self.dtype, name='forward')(x, mask, packing=packing)
    backward = Gru(self.hidden_size, reverse=True, dtype=self.dtype, name='backward')(x, mask, packing=packing)
    return (forward + backward) / 2
