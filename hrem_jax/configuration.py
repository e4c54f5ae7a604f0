"""The configuration: the sections that all methods share, their checks, and its file.

A method brings a section of its own and its recipe: `hrem_jax.methods.registry.default_config` puts them together.
"""

import json
from collections.abc import Mapping

import ml_collections

from hrem_jax.allowed import CHECKS
from hrem_jax.errors import UserError
from hrem_jax.settings import ANY, Check, check_value
from hrem_jax.tower_rules import check_towers

# Sections and keys that may change between two starts in the same workdir: they do not change what was trained.
MAY_CHANGE = (
  'evaluation', 'training.num_epochs', 'training.log_every_steps', 'training.max_skipped_steps', 'model.remat',
  'data.source', 'data.directory', 'data.cache',
)  # fmt: skip


def common_sections() -> ml_collections.ConfigDict:
  """What all methods share. Durations in steps or epochs, sizes global (over all devices and processes)."""
  config = ml_collections.ConfigDict()
  config.data = dict(
    source='precomputed',  # or 'tfds': what `python -m hrem_jax convert-data` makes of it
    directory='data',  # DIRECTORY/NAME_precomp/{train,dev,test}_{ims.npy,caps.txt,ids.txt}; tfds: also gs://...
    name='f30k',
    cache='',  # tokenised captions; empty: the user's cache folder
    length_buckets=(16, 24, 32, 48, 64, 96, 128),  # widths of a batch of captions, [CLS] and [SEP] included
    pack=True,  # several captions in a row while training: no work on padding
    row_width=64,  # of packed rows; a longer caption makes those of its batch as wide as its bucket
    packing_groups=0,  # captions are packed within groups; 0: one per device and part of model.parts
    drop_regions=0.2,  # probability of each region, while training
    drop_words=0.2,  # probability of each word: half masked, a tenth replaced, the rest deleted
    min_word_count=1,  # words seen less often in the training captions are <unk> (vocabularies that we build)
    sampler='shuffled',  # or 'neighbours': images that are alike share a batch (METHOD section 5)
  )
  config.data.neighbours = dict(
    images_per_cluster=8,  # in a batch, which so holds training.batch_size / images_per_cluster clusters
    cluster_size=64,  # images of a cluster of k-means, on average
    features='regions',  # what is clustered: mean region features; 'embeddings': as encoded at the last refresh
    every_epochs=1,  # epochs from one clustering to the next
  )
  config.model = dict(
    embedding_size=1024,  # 0: that of the towers' own embeddings (start='zero_shot')
    region_size=2048,  # 0: as many numbers as the features have
    start='random',  # or 'zero_shot': begins as the pretrained towers are, what is learnt is added with a gain from 0
    text='bert',  # or 'bigru', or 'tower': the text side of CLIP or SigLIP
    image='regions',  # or 'tower': regions are pixels (`extract --pixels`), a pretrained vision tower is in the model
    dtype='float32',  # compute type of the encoders; everything between instances is float32
    parts=1,  # a batch is encoded in so many parts, in the memory of one: exact, for one more forward pass
    remat=False,  # layers of BERT and of towers are computed again in the backward pass: exact, less memory, slower
    weights='',  # a Hugging Face folder of a BERT or of the text tower, or a hub name; empty: BERT from scratch
    image_weights='',  # the folder of the vision tower
    vocabulary='',  # BiGRU: a SCAN / VSE++ vocabulary (JSON); empty: from the training captions
    word_vectors='',  # BiGRU: a GloVe text file of model.bigru.word_size numbers a word; empty: random
  )
  config.model.bert = dict(
    # Those of bert-base-uncased; a folder of weights brings its own.
    vocab_size=30522, hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, max_positions=512,
    dropout=0.1, norm_epsilon=1e-12,
  )  # fmt: skip
  # Those of CLIP ViT-B/32; the folders bring their own. -1: there is none.
  config.model.text_tower = dict(
    hidden_size=512, num_layers=12, num_heads=8, intermediate_size=2048, activation='quick_gelu', norm_epsilon=1e-5,
    gated=False, layer_scale=False, vocab_size=49408, max_positions=77, projection_size=512, causal=True, end_token=-1,
    pad_token=49407, pads_left=False,
  )  # fmt: skip
  config.model.image_tower = dict(
    hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, activation='quick_gelu', norm_epsilon=1e-5,
    gated=False, layer_scale=False, image_size=224, patch_size=32, class_token=True, num_registers=0,
    embedding_norm=True, pooling='class', projection_size=512,
    # Of the pixels.
    scale=1 / 255, mean=(0.48145466, 0.4578275, 0.40821073), deviation=(0.26862954, 0.26130258, 0.27577711),
  )  # fmt: skip
  config.model.bigru = dict(vocab_size=10000, word_size=300)  # the vocabulary's real size is set at the start
  config.loss = dict(
    base='distance_weighted',  # or 'hinge'
    margin=0.2,
    cutoff=1.7,  # distance-weighted: candidates at this distance and beyond are no negatives
    density_dimension=512,  # distance-weighted: m
    hardest_negative=True,  # hinge: the worst violation of each anchor, not all
    hardest_from=(0, 'steps'),  # before this many 'steps' or 'epochs' all violations count
  )
  config.optimizer = dict(
    name='adamw',  # or 'adam' (decay, if any, goes through the moments), 'bert_adam' (no bias correction)
    learning_rate=5e-4,
    language_model_lr_factor=0.1,  # of BERT, BiGRU or the text tower; 0: frozen, and no backward pass through it
    image_tower_lr_factor=0.1,  # the same of the vision tower
    weight_decay=1e-4,
    clip='global',  # norm of all gradients together; 'per_tensor': of each alone
    clip_norm=2.0,
    triangle=0.0,  # share of all steps in which the rate rises from 0, to fall to 0 at the last; 0: no such thing
    decay_epochs=(15, 25),
    decay_factor=0.1,
  )
  config.training = dict(
    batch_size=128,
    num_epochs=30,
    seed=0,
    log_every_steps=20,
    checkpoint_every_steps=1000,  # between those of the evaluations
    max_skipped_steps=10,  # so many updates in a row that are not finite end the training
  )
  config.evaluation = dict(
    every_epochs=1.0,  # how often the selection split is evaluated; fractions are fine
    select_on='dev',  # the split whose rSum chooses the checkpoint ('test' only to compare with tables that did so)
    test_split='test',
    protocol='all',  # or 'coco': five folds of 1K and all 5K; 'eccv': these, CxC and ECCV Caption (docs/protocols.md)
    caption_ids='',  # eccv: COCO's ids of the captions, a file or 'karpathy'; empty: NAME_precomp/SPLIT_caption_ids.txt
    class_labels='',  # a file with the object classes of the images: R-precision of plausible matches, too
    ties='expected',  # or 'pessimistic', 'optimistic'
    batch_size=256,
    score_memory_mb=2048.0,  # most that fragments and a block of scores take together, of a method without embeddings
  )
  return config


def value_at(config: ml_collections.ConfigDict, key: str):
  """The value at a dotted key."""
  for part in key.split('.'):
    config = config[part]
  return config


def validate(
  config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict, own: Mapping[str, Check], *, num_devices: int
) -> None:
  """Raises UserError, naming the key, the value and what was expected, where a setting cannot work.

  Args:
    config: A whole configuration.
    defaults: That of its method.
    own: The checks of the method's own section, by dotted key.
    num_devices: Over all processes.
  """
  allowed = {**CHECKS, **own}
  for key, default in leaves(defaults).items():
    check_value(key, value_at(config, key), type(default), allowed.get(key, ANY))
  for key in ('model.vocabulary', 'model.word_vectors'):
    if value_at(config, key) and config.model.text != 'bigru':
      raise UserError(f"config.{key} is for config.model.text='bigru', which is {config.model.text!r}")

  check_towers(config)

  images_per_cluster = config.data.neighbours.images_per_cluster
  bert_heads = config.model.bert.num_heads
  must_divide(config, 'model.bert.hidden_size', bert_heads, f'config.model.bert.num_heads ({bert_heads})')
  if config.data.sampler == 'neighbours':
    name = f'config.data.neighbours.images_per_cluster ({images_per_cluster})'
    must_divide(config, 'training.batch_size', images_per_cluster, name)
  for key in ('training.batch_size', 'evaluation.batch_size'):
    must_divide(config, key, num_devices, f'the {num_devices} devices')
  parts = num_devices * config.model.parts
  for key in ('training.batch_size', 'data.packing_groups'):
    must_divide(config, key, parts, f'{num_devices} device(s) x {config.model.parts} part(s) (config.model.parts)')
  groups = config.data.packing_groups or parts
  must_divide(config, 'training.batch_size', groups, f'config.data.packing_groups ({groups})')


def must_divide(config: ml_collections.ConfigDict, key: str, divisor: int, name: str) -> None:
  """Raises UserError where the value at a key is not a multiple of `divisor`, which `name` tells."""
  if value_at(config, key) % divisor:
    raise UserError(f'config.{key} ({value_at(config, key)}) is not divisible by {name}')


def to_json(config: ml_collections.ConfigDict) -> str:
  return json.dumps(config.to_dict(), indent=2) + '\n'


def as_tuples(value):
  """JSON has no tuples; a locked ConfigDict wants the type back."""
  if isinstance(value, dict):
    return {key: as_tuples(item) for key, item in value.items()}
  return tuple(value) if isinstance(value, list) else value


def leaves(config: ml_collections.ConfigDict, prefix: str = '') -> dict:
  """Dotted keys and their values."""
  flat = {}
  for key, value in config.items():
    is_section = isinstance(value, ml_collections.ConfigDict)
    flat |= leaves(value, f'{prefix}{key}.') if is_section else {f'{prefix}{key}': value}
  return flat


def differences(ours: ml_collections.ConfigDict, theirs: ml_collections.ConfigDict) -> list[str]:
  """Dotted keys, with both values, in which two configurations promise different trainings."""

  first, second = leaves(ours), leaves(theirs)
  return [
    f'{key} {first[key]!r} -> {second.get(key)!r}'
    for key in first
    if first[key] != second.get(key) and not key.startswith(MAY_CHANGE)
  ]
