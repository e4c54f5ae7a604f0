"""What each setting of the configuration may be; see `hrem_jax.configuration.validate`."""

import itertools
from collections.abc import Callable


def _positive(value) -> bool:
  return value > 0


def _not_negative(value) -> bool:
  return value >= 0


def _share(value) -> bool:
  return 0 <= value <= 1


def _one_of(*values: str) -> Callable[[str], bool]:
  return lambda value: value in values


POSITIVE = {
  'data': 'row_width min_word_count',
  'data.neighbours': 'images_per_cluster cluster_size every_epochs',
  'model': 'parts num_heads',
  'model.association': 'top_k sigma',
  'optimizer': 'learning_rate clip_norm',
  'training': 'num_epochs log_every_steps checkpoint_every_steps max_skipped_steps',
  'evaluation': 'every_epochs batch_size score_memory_mb',
  'model.bigru': 'word_size vocab_size',
  'model.bert': 'vocab_size hidden_size num_layers num_heads intermediate_size max_positions',
  'model.text_tower': 'vocab_size hidden_size num_layers num_heads intermediate_size max_positions projection_size',
  'model.image_tower': 'hidden_size num_layers num_heads intermediate_size image_size patch_size',
}
NOT_NEGATIVE = {
  'loss': 'margin cross_weight enhanced_weight relation_weight warmup_steps',
  'optimizer': 'language_model_lr_factor image_tower_lr_factor graph_lr_factor weight_decay decay_factor',
  'model': 'relevance_weight embedding_size region_size',
}
CHECKS: dict[str, tuple[Callable, str]] = {
  **{f'{section}.{key}': (_positive, 'positive') for section, keys in POSITIVE.items() for key in keys.split()},
  **{
    f'{section}.{key}': (_not_negative, '0 or more') for section, keys in NOT_NEGATIVE.items() for key in keys.split()
  },
  'optimizer.decay_epochs': (lambda epochs: all(epoch > 0 for epoch in epochs), 'positive epochs'),
  'data.source': (_one_of('precomputed', 'tfds'), "'precomputed' or 'tfds'"),
  'data.length_buckets': (
    lambda b: len(b) > 0 and b[0] >= 3 and all(x < y for x, y in itertools.pairwise(b)),
    'increasing widths, the first at least 3',
  ),
  'data.packing_groups': (_not_negative, '0 (one per device) or positive'),
  'data.drop_regions': (lambda value: 0 <= value < 1, 'a probability below 1'),
  'data.drop_words': (_share, 'a probability'),
  'data.sampler': (_one_of('shuffled', 'neighbours'), "'shuffled' or 'neighbours'"),
  'data.neighbours.features': (_one_of('regions', 'embeddings'), "'regions' or 'embeddings'"),
  'model.start': (_one_of('random', 'zero_shot'), "'random' or 'zero_shot'"),
  'model.text': (_one_of('bert', 'bigru', 'tower'), "'bert', 'bigru' or 'tower'"),
  'model.image': (_one_of('regions', 'tower'), "'regions' or 'tower'"),
  'model.interaction': (_one_of('fusion', 'standalone', 'none'), "'fusion', 'standalone' or 'none'"),
  'model.dtype': (_one_of('float32', 'bfloat16'), "'float32' or 'bfloat16'"),
  'model.dropout': (lambda value: 0 <= value < 1, 'a probability below 1'),
  'model.residual_weight': (_share, 'between 0 and 1'),
  'model.association.keep': (lambda value: 0 < value <= 1, 'above 0, at most 1'),
  'model.association.blocks': (_one_of('all', 'intra', 'inter'), "'all', 'intra' or 'inter'"),
  'loss.base': (_one_of('distance_weighted', 'hinge'), "'distance_weighted' or 'hinge'"),
  'loss.enhanced': (_one_of('distance_weighted', 'hinge'), "'distance_weighted' or 'hinge'"),
  'loss.cutoff': (lambda value: 0.5 < value <= 2, 'a distance above 0.5, at most 2'),
  'loss.density_dimension': (lambda value: value > 3, 'above 3'),
  'training.batch_size': (lambda value: value >= 2, 'at least 2: a batch of one has no negatives'),
  'training.seed': (lambda value: 0 <= value < 2**32, 'between 0 and 2**32 - 1'),
  'evaluation.select_on': (_one_of('dev', 'test'), "'dev' or 'test'"),
  'evaluation.protocol': (_one_of('all', 'coco', 'eccv'), "'all', 'coco' or 'eccv'"),
  'evaluation.ties': (_one_of('expected', 'pessimistic', 'optimistic'), "'expected', 'pessimistic' or 'optimistic'"),
}
ANY = (lambda value: True), 'anything'
