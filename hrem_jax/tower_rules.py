"""Which settings go with pretrained towers (CLIP, SigLIP ...), and what they ask of others."""

import ml_collections

from hrem_jax.errors import UserError


def check_towers(config: ml_collections.ConfigDict) -> None:
  """Raises UserError where a configuration asks for pretrained towers that cannot be had, or not together."""
  model = config.model
  for key, choice, name in (('weights', 'text', 'text'), ('image_weights', 'image', 'vision')):
    if model[choice] == 'tower' and not model[key]:
      raise UserError(
        f"config.model.{key} is empty, expected the folder of the {name} tower for config.model.{choice}='tower'"
      )
  if model.image_weights and model.image != 'tower':
    raise UserError(f"config.model.image_weights is for config.model.image='tower', which is {model.image!r}")
  if model.start == 'zero_shot' and model.image == 'tower' and model.image_weights != model.weights:
    raise UserError(
      f'config.model.image_weights is {model.image_weights!r}, expected {model.weights!r} as config.model.weights: '
      "config.model.start='zero_shot' compares what the two towers of one folder make"
    )
  if model.start == 'zero_shot' and model.text != 'tower':
    raise UserError(
      "config.model.start='zero_shot' begins with what a text tower makes of texts: expected config.model.text='tower' "
      f'with the folder of a CLIP or SigLIP as config.model.weights, found {model.text!r}'
    )
  if not model.embedding_size and model.start != 'zero_shot':
    raise UserError(
      "config.model.embedding_size is 0, expected positive: only with config.model.start='zero_shot' it is that of the "
      'towers'
    )
  if takes_embeddings(model) and config.data.source != 'precomputed':
    raise UserError(
      "config.model.start='zero_shot' needs the encoder's own embeddings (SPLIT_embeddings.npy): expected "
      f"config.data.source='precomputed' or config.model.image='tower', found {config.data.source!r}"
    )
  if config.model.text == 'tower' and config.data.pack and not config.model.text_tower.causal:
    raise UserError(
      'config.data.pack is True, expected False: the text tower looks at the padding behind a text (SigLIP), which '
      'packed rows do not have'
    )


def takes_embeddings(model: ml_collections.ConfigDict) -> bool:
  """Whether the section `model` describes one that begins with embeddings which stand beside the features."""
  return model.start == 'zero_shot' and model.image == 'regions'
