"""For a few pairs, which regions answer which words. Arrays in, small values out."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.data.pipeline import image_inputs, pad_tokens
from hrem_jax.data.precomputed import Split
from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.ops.word_regions import join_pieces, word_region_cosine
from hrem_jax.report.examples import Examples
from hrem_jax.retrieval.run import Run

NUM_HITS, NUM_MISSES = 2, 2


@dataclasses.dataclass(frozen=True)
class Pair:
  """A caption and a picture, and why they are shown."""

  text: int
  image: int
  verdict: str
  is_right: bool


@dataclasses.dataclass(frozen=True)
class Answer:
  """The words of a pair's caption, as the model sees them, and their cosines with the real regions of its picture."""

  pair: Pair
  words: tuple[str, ...]
  cosine: Float[np.ndarray, 'w r']


def choose_pairs(examples: Examples, owner: Int[np.ndarray, ' t']) -> list[Pair]:
  """The first captions of the report's hits and misses with their own picture; a miss also with the one put first."""
  pairs = [Pair(hit.query, int(owner[hit.query]), 'its own picture, found first', True) for hit in examples.hits]
  pairs = pairs[:NUM_HITS]
  for miss in examples.misses[:NUM_MISSES]:
    position = miss.right[0].position
    pairs.append(Pair(miss.query, int(owner[miss.query]), f'its own picture, at rank {position:,}', True))
    wrong = next((candidate for candidate in miss.best if not candidate.is_right), None)
    if wrong is not None:
      pairs.append(Pair(miss.query, wrong.row, f'another picture, at rank {wrong.position:,}', False))
  return pairs


def answers(run: Run, variables: dict, split: Split, pairs: Sequence[Pair]) -> tuple[Answer, ...]:
  """Word-region cosines of the fragments that the encoders make."""
  if not pairs:
    return ()
  tokens, word_mask = pad_captions(run, [split.captions[pair.text] for pair in pairs])
  chosen = np.array([pair.image for pair in pairs])
  inputs = image_inputs(split.features, chosen, run.method.wants)

  def fragments(encode: str, inputs: ImageInputs | TextInputs):
    found = jax.jit(lambda variables, inputs: run.method.apply(variables, inputs, method=encode).fragments)
    return np.asarray(found(variables, inputs), np.float32)

  images, texts = fragments('encode_images', inputs), fragments('encode_texts', TextInputs(tokens, word_mask))
  found = []
  for row, pair in enumerate(pairs):
    words, word_of = joined_words(split.captions[pair.text], run.tokenizer, int(word_mask[row].sum()))
    found.append(Answer(pair, words, answer_of(texts[row], word_mask[row], images[row], inputs.mask[row], word_of)))
  return tuple(found)


def answer_of(
  words: Float[np.ndarray, 'p d'],
  word_mask: Bool[np.ndarray, ' p'],
  regions: Float[np.ndarray, 'r d'],
  region_mask: Bool[np.ndarray, ' r'],
  word_of: Int[np.ndarray, ' q'],
) -> Float[np.ndarray, 'w s']:
  """Cosines of whole words with real regions; `word_of` numbers the real pieces."""
  cosine = np.asarray(word_region_cosine(words[word_mask], regions[region_mask]))
  return join_pieces(cosine, word_of)


def joined_words(caption: str, tokenizer: TextTokenizer, width: int) -> tuple[tuple[str, ...], np.ndarray]:
  """The words of a caption, pieces joined, `start` and `end` around them.

  Args:
    caption: Its text.
    tokenizer: What made its tokens.
    width: So many tokens the model saw, start and end included; a longer caption was cut.

  Returns:
    The words, and for every token the word (counted from 0) that it belongs to.
  """
  tokens, numbers = tokenizer.encode([caption])[0]
  start = () if tokenizer.start is None else ('⟨start⟩',)
  seen = list(zip(tokens[: width - tokenizer.num_special], numbers, strict=False))
  groups = [[token for token, _ in group] for _, group in itertools.groupby(seen, lambda pair: pair[1])]
  words = (*start, *map(tokenizer.word, groups), '⟨end⟩')
  sizes = [1] * len(start) + [len(group) for group in groups] + [1]
  return words, np.repeat(np.arange(len(words)), sizes)


def pad_captions(run: Run, captions: Sequence[str]) -> tuple[Int[np.ndarray, 't w'], Bool[np.ndarray, 't w']]:
  """Tokens and mask, as wide as the longest of them, and no wider than the model takes."""
  tokens = [np.asarray(found, np.int32) for found, _ in run.tokenizer.encode(captions)]
  width = min(max(map(len, tokens)) + run.tokenizer.num_special, run.config.data.length_buckets[-1])
  return pad_tokens(tokens, width, run.tokenizer)
