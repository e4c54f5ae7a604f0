"""The towers that a configuration names: their sizes, vocabulary and weights, from their folders."""

import dataclasses

import ml_collections

from hrem_jax.data.tokenizer import TextTokenizer
from hrem_jax.errors import UserError
from hrem_jax.models.tower_encoders import tower_settings
from hrem_jax.ports.huggingface import find_folder, merge_checked
from hrem_jax.ports.towers import TextSide, VisionSide, open_towers, open_vision


def fill_in_towers(config: ml_collections.ConfigDict, tokenizer: TextTokenizer | None) -> TextTokenizer | None:
  """Sets the sizes in `config`, a whole configuration, to those of the folders that it names.

  Args:
    config: Changed in place; an embedding size of 0 becomes that of the towers.
    tokenizer: That of an earlier start.

  Returns:
    `tokenizer`, or that of the text tower where there is one.

  Raises:
    UserError: A folder is missing or damaged, or does not fit the rest of the configuration.
  """
  model = config.model
  if model.image == 'tower':
    side = _vision(model)
    model.image_tower.update(tower_settings(side.module) | _normalisation(side))
    _fit_size(model, model.image_weights, side.embedding_size, 'pictures')
  if model.text == 'tower':
    side = _text(model)
    pads = {'pad_token': side.tokenize.pad, 'pads_left': side.tokenize.pads_left}
    model.text_tower.update(tower_settings(side.module) | pads)
    _fit_size(model, model.weights, side.module.projection_size, 'texts')
    widest, positions = config.data.length_buckets[-1], side.module.max_positions
    if widest > positions:
      raise UserError(
        f'config.data.length_buckets ends with {widest}, expected at most {positions}: so many positions has the text '
        f'tower of {model.weights}'
      )
    tokenizer = tokenizer or side.tokenize.text_tokenizer(source=model.weights)
  return tokenizer


def read_towers(model: ml_collections.ConfigDict, expected: dict[str, dict]) -> dict[str, dict]:
  """The pretrained parameters of the towers of a model.

  Args:
    model: The section `model` of a configuration, sizes filled in.
    expected: Parameters, or their shapes, by encoder, of those encoders whose tower is wanted.

  Returns:
    `{'image_encoder': {'tower': ...}, 'text_encoder': {'language_model': ...}}`, or what of it is wanted and there.

  Raises:
    UserError: A folder is missing or damaged, or has other shapes.
  """
  towers = {}
  if 'image_encoder' in expected and model.image == 'tower':
    theirs, ours = _vision(model).variables['params'], expected['image_encoder']['tower']
    towers['image_encoder'] = {'tower': merge_checked(ours, theirs, source=model.image_weights)}
  if 'text_encoder' in expected and model.text == 'tower':
    theirs, ours = _text(model).variables['params'], expected['text_encoder']['language_model']
    towers['text_encoder'] = {'language_model': merge_checked(ours, theirs, source=model.weights)}
  return towers


def _vision(model: ml_collections.ConfigDict) -> VisionSide:
  return open_vision(find_folder(model.image_weights, key='image_weights'))


def _text(model: ml_collections.ConfigDict) -> TextSide:
  return open_towers(find_folder(model.weights)).text


def _normalisation(side: VisionSide) -> dict:
  settings = dataclasses.asdict(side.preprocessing)
  return {key: settings[key] for key in ('scale', 'mean', 'deviation')}


def _fit_size(model: ml_collections.ConfigDict, folder: str, size: int | None, whose: str) -> None:
  """The embeddings of a model that begins as the towers are have the size of theirs."""
  if model.start != 'zero_shot':
    return
  if size is None:
    raise UserError(
      f'{folder}: has no embeddings of {whose} that can be compared with those of texts, expected a CLIP or SigLIP for '
      "config.model.start='zero_shot'"
    )
  model.embedding_size = model.embedding_size or size
  if size != model.embedding_size:
    raise UserError(
      f'{folder}: embeddings of {whose} of size {size}, expected config.model.embedding_size={model.embedding_size} '
      "for config.model.start='zero_shot'"
    )
