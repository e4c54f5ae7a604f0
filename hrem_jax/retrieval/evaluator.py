"""A run and splits of a data set: scores, and what they are worth."""

import functools
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from hrem_jax.data.pipeline import Images, bucket_for
from hrem_jax.data.precomputed import Split
from hrem_jax.data.token_cache import cache_folder, cached_tokens
from hrem_jax.data.tokenizer import TextTokenizer, TokenizedCaptions
from hrem_jax.errors import UserError
from hrem_jax.retrieval.checksums import digest
from hrem_jax.retrieval.encode import DataEncoder, HostMemory, TextBlock
from hrem_jax.retrieval.pair_scores import pair_scores
from hrem_jax.retrieval.protocols import Metrics
from hrem_jax.retrieval.run import Run
from hrem_jax.retrieval.scores import DotScores, Scores
from hrem_jax.retrieval.split_protocols import evaluate_split, recall_only

Tokenize = Callable[[list[str], TextTokenizer], TokenizedCaptions]
NOT_OF_THE_SCORE = ('data', 'loss', 'optimizer', 'training', 'evaluation')  # sections of a configuration


class Evaluator:
  """Images and texts of any origin through the encoders of a run, and on to scores and metrics (METHOD section 6)."""

  def __init__(self, run: Run, mesh: Mesh):
    self._run, self._mesh = run, mesh
    self.encoder = DataEncoder(run.method, mesh, chunk_size=run.config.evaluation.batch_size)
    self._buckets = tuple(run.config.data.length_buckets)

  def embed(self, variables: dict, split: Split) -> tuple[Float[np.ndarray, 'i d'], Float[np.ndarray, 't d']]:
    """Embeddings of the images and of the captions.

    Raises:
      UserError: One is not finite: a model that broke must not get a recall.
    """
    images = self.encoder.encode_images(variables, split.features)
    texts = self.embed_texts(variables, split.captions, self._cached_tokens)
    for what, embeddings in (('images', images), ('captions', texts)):
      is_broken = ~np.isfinite(embeddings).all(axis=1)
      if is_broken.any():
        raise UserError(
          f'split {split.name}: NaN or infinite embeddings of {is_broken.sum()} of {len(embeddings)} {what}, the first '
          f'at position {is_broken.argmax()}; expected are a model that has not diverged and finite features'
        )
    return images, texts

  def embed_texts(
    self, variables: dict, texts: Sequence[str], tokenize: Tokenize, *, few_widths: bool = False
  ) -> Float[np.ndarray, 't d']:
    """Embeddings of sentences, of which there is at least one, in their order.

    Equal ones are encoded once: their embeddings must be equal to the last bit, or a tie is decided by rounding. With
    `few_widths` they are padded to `config.data.length_buckets`, so that single ones need no more programs than that.
    """
    unique, where = np.unique(np.asarray(texts, object), return_inverse=True)
    tokenized, widths = tokenize(unique.tolist(), self._run.tokenizer), self._buckets if few_widths else None
    return self.encoder.encode_texts(variables, tokenized, self._run.tokenizer, self._buckets[-1], widths)[where]

  def text_fragments(
    self,
    variables: dict,
    texts: Sequence[str],
    tokenize: Tokenize,
    memory: HostMemory | None = None,
    *,
    one_width: bool = False,
  ) -> tuple[list[TextBlock], Int[np.ndarray, ' t']]:
    """Sentences, of which there is at least one, as blocks of fragments, and for each the first that equals it.

    Equal ones are encoded once: the numbers in the blocks are those of the first ones. Widths are those of
    `config.data.length_buckets`; with `one_width` all blocks have that of the longest sentence.
    """
    unique, first, where = np.unique(np.asarray(texts, object), return_index=True, return_inverse=True)
    tokenized = tokenize(unique.tolist(), self._run.tokenizer)
    widths = (bucket_for(int(tokenized.lengths.max()), self._buckets),) if one_width else self._buckets
    blocks = self.encoder.encode_text_fragments(variables, tokenized, self._run.tokenizer, widths, memory)
    return [block._replace(captions=first[block.captions]) for block in blocks], first[where]

  def scores(self, variables: dict, split: Split, *, folder: pathlib.Path | None = None) -> Scores:
    """Of all images of a split with all of its captions.

    Args:
      folder: Where a method without embeddings keeps a matrix, so that it is not computed twice, and goes on with one
        after a kill; None: the matrix is not kept.

    Raises:
      UserError: An embedding or a score is not finite.
    """
    if self._run.method.kind == 'embeddings':
      return DotScores(*self.embed(variables, split))
    store = folder and folder / f'{split.name}_{self._digest(variables, split)[:16]}'
    try:
      return self.pair_scores(variables, split.features, split.captions, self._cached_tokens, store=store)
    except FloatingPointError as error:
      raise UserError(
        f'split {split.name}: {error}; expected are a model that has not diverged and finite features'
      ) from error

  def pair_scores(
    self,
    variables: dict,
    images: Images,
    texts: Sequence[str],
    tokenize: Tokenize,
    *,
    store: pathlib.Path | None = None,
  ) -> Scores:
    """The same of any images and texts by a method without embeddings, of each at least one.

    Half of `config.evaluation.score_memory_mb` is for fragments, half for a block of scores.
    """
    half = self._run.config.evaluation.score_memory_mb / 2
    memory = HostMemory(half)
    encoded = self.encoder.encode_image_fragments(variables, images, memory)
    blocks, first_equal = self.text_fragments(variables, texts, tokenize, memory)
    return pair_scores(
      self._run.method, variables, encoded, blocks, first_equal, self._mesh, store=store, memory_mb=half
    )

  def evaluate(self, variables: dict, split: Split, *, protocol: str) -> Metrics:
    """Recall metrics of a split by `protocol`, whatever else the configuration asks of the test split."""
    return evaluate_split(self.scores(variables, split), split, recall_only(self._run.config, protocol))

  @functools.cached_property
  def _cached_tokens(self) -> Tokenize:
    return functools.partial(cached_tokens, folder=cache_folder(self._run.config.data.cache))

  def _digest(self, variables: dict, split: Split) -> str:
    """Of all that the scores of a split follow from."""
    config = self._run.config.to_dict()
    settings = {name: section for name, section in config.items() if name not in NOT_OF_THE_SCORE}
    version = importlib.metadata.version('hrem_jax')
    content = hashlib.sha256(json.dumps([version, settings, self._buckets, split.captions, split.ids]).encode())
    content.update(self._run.tokenizer.to_json().encode())
    content.update(digest(variables).encode())
    for _, inputs in self.encoder.image_chunks(split.features):
      content.update(digest(inputs).encode())
    return content.hexdigest()
