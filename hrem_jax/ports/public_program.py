"""How the checkpoint of a public program is read: what each program says of itself, and what they share."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hrem_jax.errors import UserError, shown
from hrem_jax.ports.release_tensors import Tensors
from hrem_jax.ports.tables import Entry

Options = Mapping[str, Any]


class StateDicts(NamedTuple):
  """Those in a checkpoint; `criterion` is empty where the file has none."""

  image: Tensors
  text: Tensors
  criterion: Tensors


class Part(NamedTuple):
  """A tree of ours, and where its parameters come from."""

  ours: str  # `COLLECTION/MODULE`
  tensors: Tensors  # one of the state dicts
  entries: list[Entry]


class Layers(NamedTuple):
  """What the tensors of a checkpoint say."""

  about: str  # for a person
  parts: list[Part]
  settings: dict[str, Any]  # by dotted key, from names and shapes


@dataclasses.dataclass(frozen=True)
class Program:
  """The public program of a method.

  Attributes:
    names: What its state dicts hold, in words, for the message where nothing fits.
    fits: Whether the names of some tensors are its.
    layers: Raises UserError where tensors are missing; the second argument is the file.
    options: Its options (`opt` in the file), and the settings of ours that have the same value.
    words: Its options with a choice of words: the setting, and what each word is called here.
    derived: Settings that follow from options in another way; the second argument is the file.
    foreign: A pattern of names of tensors that matter and that our layers have no place for.
    unused: A pattern of names of tensors that are there without an effect.
  """

  names: str
  fits: Callable[[StateDicts], bool]
  layers: Callable[[StateDicts, str], Layers]
  options: Mapping[str, str]
  words: Mapping[str, tuple[str, Mapping[str, str]]] = dataclasses.field(default_factory=dict)
  derived: Callable[[Options, str], dict[str, Any]] = lambda options, source: {}
  foreign: str = '(?!)'
  unused: str = '(?!)'

  def settings(self, options: Options, source: str) -> dict[str, Any]:
    """Settings by dotted key that the options say; what is not among them keeps our default.

    Raises:
      UserError: A word is not among those that the program knows.
    """
    settings = {ours: options[theirs] for theirs, ours in self.options.items() if theirs in options}
    for theirs, (ours, names) in self.words.items():
      if theirs in options:
        word = options[theirs]
        if not isinstance(word, str) or word not in names:
          raise UserError(f'{source}: the option {theirs} is {shown(word)}, expected one of {", ".join(names)}')
        settings[ours] = names[word]
    return settings | self.derived(options, source)


def data_name(options: Options, source: str) -> dict[str, Any]:
  """`f30k_precomp` is what we call `f30k`."""
  name = options.get('data_name')
  if name is None:
    return {}
  if not isinstance(name, str):
    raise UserError(f'{source}: the option data_name is {shown(name)}, expected a text')
  return {'data.name': name.removesuffix('_precomp')}


def shape_of(tensors: Tensors, name: str, dimensions: int, source: str) -> tuple[int, ...]:
  """Raises UserError where there is no such tensor of so many dimensions."""
  if name not in tensors or len(tensors.shape(name)) != dimensions or not all(tensors.shape(name)):
    raise UserError(f'{source}: no tensor {name} with {dimensions} dimensions')
  return tensors.shape(name)


def projection_settings(image: Tensors, linear: str, source: str) -> dict[str, int]:
  """The sizes that the weight of the linear layer on regions shows."""
  embedding_size, region_size = shape_of(image, linear, 2, source)
  return {'model.embedding_size': embedding_size, 'model.region_size': region_size}


def text_settings(text: Tensors, source: str) -> dict[str, Any]:
  """Which language model it is, and its sizes."""
  for kind, (name, settings) in LANGUAGE_MODELS.items():
    if name in text:
      return {'model.text': kind, **settings(text, source)}
  names = ' or '.join(name for name, _ in LANGUAGE_MODELS.values())
  raise UserError(f'{source}: its text encoder is neither a BERT nor a BiGRU: no {names}')


def _bert_settings(text: Tensors, source: str) -> dict[str, int]:
  numbers = [int(found[1]) for name in text if (found := re.match(r'bert\.encoder\.layer\.(\d{1,4})\.', name))]
  vocab_size, hidden_size = shape_of(text, 'bert.embeddings.word_embeddings.weight', 2, source)
  sizes = {
    'vocab_size': vocab_size,
    'hidden_size': hidden_size,
    'num_layers': max(numbers, default=0) + 1,
    'intermediate_size': shape_of(text, 'bert.encoder.layer.0.intermediate.dense.weight', 2, source)[0],
    'max_positions': shape_of(text, 'bert.embeddings.position_embeddings.weight', 2, source)[0],
  }
  return {f'model.bert.{key}': size for key, size in sizes.items()}


def _bigru_settings(text: Tensors, source: str) -> dict[str, int]:
  vocab_size, word_size = shape_of(text, 'embed.weight', 2, source)
  return {'model.bigru.vocab_size': vocab_size, 'model.bigru.word_size': word_size}


LANGUAGE_MODELS = {
  'bert': ('bert.embeddings.word_embeddings.weight', _bert_settings),
  'bigru': ('embed.weight', _bigru_settings),
}
