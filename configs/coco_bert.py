"""MS-COCO, BERT-base, Fusion.

Paper (selected on test): rSum 530.7 on five folds of 1K, 444.1 on 5K. Weights: a folder of bert-base-uncased, or its
hub name. The test split is `testall` (5K images); five folds and 5K come from one evaluation.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config()
  config.data.name = 'coco'
  config.model.weights = 'google-bert/bert-base-uncased'
  config.hrem.relevance_weight = 1.5
  config.loss.cutoff = 1.9
  config.training.batch_size = 256
  config.evaluation.test_split = 'testall'
  config.evaluation.protocol = 'coco'
  return with_variant(config, variant)
