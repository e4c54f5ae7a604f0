"""MS-COCO, GPO (VSE-infinity); `:bert` (the default) or `:bigru`, and variants behind a `+`.

Paper (selected on dev): rSum 527.5 on five folds of 1K and 434.3 on 5K with BERT, 520.8 and 421.9 with a BiGRU.
Weights: a folder of bert-base-uncased, or its hub name.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import split_text, with_variant


def get_config(variant: str = ''):
  text, variant = split_text(variant)
  config = default_config('gpo')
  config.data.name = 'coco'
  config.model.text = text
  if text == 'bert':
    config.model.weights = 'google-bert/bert-base-uncased'
  else:
    config.data.min_word_count = 4  # as the field's vocabularies
    config.optimizer.language_model_lr_factor = 1.0
    config.optimizer.weight_decay = 0.01  # of the public program
  config.evaluation.test_split = 'testall'
  config.evaluation.protocol = 'coco'
  return with_variant(config, variant)
