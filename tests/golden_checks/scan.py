"""SCAN beside its public program: every variant's scores, losses and gradients."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from golden_checks.golden_file import GoldenFile
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.registry import build_method, default_config
from hrem_jax.methods.scan import SCAN
from hrem_jax.ports.scan import image_encoder_entries, read_scan, text_encoder_entries

ASKS = {'t2i': 'words', 'i2t': 'regions'}
AGGREGATIONS = {'LogSumExp': 'lse', 'Mean': 'mean', 'Max': 'max', 'Sum': 'sum'}


def check(file: GoldenFile) -> None:
  settings = file.settings('setting_json')
  image_encoder, text_encoder = (file.use_below(f'weight/{part}.') for part in ('img_enc', 'txt_enc'))
  variables = read_scan(image_encoder, text_encoder, source=file.path.name)
  for name, variant in settings['variants'].items():
    method = build_method(configuration(file, settings, variant, text_encoder['embed.weight'].shape[1]))
    for part in ('train', 'eval'):
      if f'{part}/score/{name}' in file:
        check_scores(file, part, name, method, variables)
    if f'train/score/{name}' in file:
      check_losses(file, name, method, variables)


def configuration(file: GoldenFile, settings: dict, variant: dict, word_size: int) -> ml_collections.ConfigDict:
  config = default_config('scan')
  config.model.update(
    region_size=settings['img_dim'], embedding_size=settings['embed_size'], dtype=file.dtype.name, text='bigru'
  )
  config.model.bigru.update(vocab_size=settings['vocab_size'], word_size=word_size)
  config.loss.margin = settings['margin']
  config.scan.update(
    asks=ASKS[variant['cross_attn']],
    inverse_temperature=float(variant['lambda_softmax']),
    aggregation=AGGREGATIONS[variant['agg_func']],
    lse_factor=float(variant['lambda_lse']),
    normalisation=variant.get('raw_feature_norm', 'clipped_l2norm'),
  )
  return config


def read_batch(file: GoldenFile, part: str) -> Batch:
  regions, tokens = file.use(f'{part}/images'), jnp.asarray(file.use(f'{part}/tokens'), jnp.int32)
  word_mask = jnp.arange(tokens.shape[1]) < file.use(f'{part}/lengths')[:, None]
  images = ImageInputs(jnp.asarray(regions), jnp.ones(regions.shape[:2], bool))
  return Batch(images, TextInputs(tokens, word_mask), jnp.arange(len(regions)))


def check_scores(file: GoldenFile, part: str, name: str, method: SCAN, variables: dict) -> None:
  @functools.partial(jax.jit, static_argnames='method')
  def run(method, variables, batch):
    def score(method):
      images, texts = method.encode_images(batch.images), method.encode_texts(batch.texts)
      return images.fragments, texts.fragments, method.score(images, texts)[0]

    return method.apply(variables, method=score)

  batch = read_batch(file, part)
  regions, words, scores = run(method, variables, batch)
  file.compare(f'{part}/regions', regions)
  file.compare(f'{part}/words', words, real=np.asarray(batch.texts.mask))
  file.compare(f'{part}/score/{name}', scores)


def check_losses(file: GoldenFile, name: str, method: SCAN, variables: dict) -> None:
  batch = read_batch(file, 'train')

  def loss(params, phase):
    return method.apply({'params': params}, batch, phase=phase, method='losses').terms['matching']

  gradients = file.names(f'grad/{name}/')
  hardest = functools.partial(loss, phase='hardest')
  found = jax.jit(jax.value_and_grad(hardest) if gradients else lambda params: (hardest(params), None))
  value, gradient = found(variables['params'])
  file.compare(f'train/loss/{name}/hard', value)
  file.compare(f'train/loss/{name}/sum', jax.jit(functools.partial(loss, phase='sum'))(variables['params']))
  if gradients:
    for part, prefix, entries in (
      ('image_encoder', 'img_enc.', image_encoder_entries()),
      ('text_encoder', 'txt_enc.', text_encoder_entries()),
    ):
      file.compare_parameters(f'grad/{name}/{prefix}', entries, gradient[part])
