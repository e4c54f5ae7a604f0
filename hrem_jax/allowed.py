"""What each setting of the configuration may be; see `hrem_jax.configuration.validate`."""

import itertools

from hrem_jax.settings import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Check, one_of

_POSITIVE = {
  'data': 'row_width min_word_count',
  'data.neighbours': 'images_per_cluster cluster_size every_epochs',
  'model': 'parts',
  'optimizer': 'learning_rate clip_norm',
  'training': 'num_epochs log_every_steps checkpoint_every_steps max_skipped_steps',
  'evaluation': 'every_epochs batch_size score_memory_mb',
  'model.bigru': 'word_size vocab_size',
  'model.bert': 'vocab_size hidden_size num_layers num_heads intermediate_size max_positions',
  'model.text_tower': 'vocab_size hidden_size num_layers num_heads intermediate_size max_positions projection_size',
  'model.image_tower': 'hidden_size num_layers num_heads intermediate_size image_size patch_size',
}
_NOT_NEGATIVE = {
  'loss': 'margin',
  'optimizer': 'language_model_lr_factor image_tower_lr_factor weight_decay decay_factor',
  'model': 'embedding_size region_size',
}
CHECKS: dict[str, Check] = {
  **{f'{section}.{key}': POSITIVE for section, keys in _POSITIVE.items() for key in keys.split()},
  **{f'{section}.{key}': NOT_NEGATIVE for section, keys in _NOT_NEGATIVE.items() for key in keys.split()},
  'optimizer.name': one_of('adamw', 'adam', 'bert_adam'),
  'optimizer.clip': one_of('global', 'per_tensor'),
  'optimizer.triangle': Check(lambda value: 0 <= value < 1, 'a share below 1'),
  'optimizer.decay_epochs': Check(lambda epochs: all(epoch > 0 for epoch in epochs), 'positive epochs'),
  'data.source': one_of('precomputed', 'tfds'),
  'data.length_buckets': Check(
    lambda b: len(b) > 0 and b[0] >= 3 and all(x < y for x, y in itertools.pairwise(b)),
    'increasing widths, the first at least 3',
  ),
  'data.packing_groups': Check(NOT_NEGATIVE.is_fine, '0 (one per device) or positive'),
  'data.drop_regions': BELOW_ONE,
  'data.drop_words': Check(SHARE.is_fine, 'a probability'),
  'data.sampler': one_of('shuffled', 'neighbours'),
  'data.neighbours.features': one_of('regions', 'embeddings'),
  'model.start': one_of('random', 'zero_shot'),
  'model.text': one_of('bert', 'bigru', 'tower'),
  'model.image': one_of('regions', 'tower'),
  'model.dtype': one_of('float32', 'bfloat16'),
  'loss.base': one_of('distance_weighted', 'hinge'),
  'loss.cutoff': Check(lambda value: 0.5 < value <= 2, 'a distance above 0.5, at most 2'),
  'loss.density_dimension': Check(lambda value: value > 3, 'above 3'),
  'loss.hardest_from': Check(
    lambda value: len(value) == 2 and value[0] >= 0 and value[1] in ('steps', 'epochs'), "(number, 'steps' or 'epochs')"
  ),
  'training.batch_size': Check(lambda value: value >= 2, 'at least 2: a batch of one has no negatives'),
  'training.seed': Check(lambda value: 0 <= value < 2**32, 'between 0 and 2**32 - 1'),
  'evaluation.select_on': one_of('dev', 'test'),
  'evaluation.protocol': one_of('all', 'coco', 'eccv'),
  'evaluation.ties': one_of('expected', 'pessimistic', 'optimistic'),
}
