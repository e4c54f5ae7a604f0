"""GPO beside its public program: encoders, rank weights, losses with gradients, BatchNorm, and a run of updates."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from golden_checks.golden_file import PARAMETER_BOUND, VALUE_BOUNDS, GoldenFile
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.methods.gpo import GPO
from hrem_jax.methods.registry import build_method, default_config
from hrem_jax.ops.pooling import weighted_by_rank
from hrem_jax.ports.gpo import batch_stats_entries, image_encoder_entries, read_gpo, text_encoder_entries
from hrem_jax.training.setup import make_optimizer
from hrem_jax.training.state import TrainState, create_state
from hrem_jax.training.step import train_step

START = 'gpo_bigru.npz'  # a trajectory begins with its weights
# Zero in truth. An update turns the float noise of such a gradient into moves of the size of the rate.
NO_GRADIENT = ('attention/key/bias', 'mlp_in/bias')
PHASES = {'sum': 'sum', 'max': 'hardest'}


def check(file: GoldenFile) -> None:
  file.set_aside(['public_padding/', *(name for name in file.names() if 'mlp.bns.1.' in name)])  # never used
  if 'weights/image.fc.weight' in file:
    config, variables = configuration(file), read_variables(file)
    check_evaluation(file, build_method(config), variables)
    for part in ('train', 'masked'):
      if f'{part}/images' in file:
        check_training(file, part, build_method(config), variables)
  if 'batch/00/regions' in file:
    check_trajectory(file)


def text_of(file: GoldenFile) -> str:
  return 'bigru' if 'weights/text.rnn.weight_ih_l0' in file else 'bert'


def num_layers(file: GoldenFile) -> int:
  return len(file.names('weights/text.bert.encoder.layer.')) // 16


def read_variables(file: GoldenFile) -> dict:
  parts = (file.use_below(f'weights/{part}.') for part in ('image', 'text'))
  return read_gpo(*parts, text=text_of(file), num_layers=num_layers(file), source=file.path.name)


def configuration(file: GoldenFile) -> ml_collections.ConfigDict:
  """Of the sizes of the weights."""
  config, text = default_config('gpo'), text_of(file)
  size, region_size = file.use('weights/image.fc.weight').shape
  config.model.update(region_size=region_size, embedding_size=size, dtype=file.dtype.name, text=text)
  if text == 'bigru':
    vocabulary, word_size = file.use('weights/text.embed.weight').shape
    config.model.bigru.update(vocab_size=vocabulary, word_size=word_size)
  else:
    vocabulary, hidden = file.use('weights/text.bert.embeddings.word_embeddings.weight').shape
    config.model.bert.update(
      vocab_size=vocabulary,
      hidden_size=hidden,
      num_layers=num_layers(file),
      num_heads=file.settings('meta_json')['bert']['num_attention_heads'],
      intermediate_size=len(file.use('weights/text.bert.encoder.layer.0.intermediate.dense.weight')),
      max_positions=len(file.use('weights/text.bert.embeddings.position_embeddings.weight')),
      dropout=0.0,
    )
  return config


def read_batch(file: GoldenFile, prefix: str = '', *, ragged_regions: bool) -> Batch:
  regions, tokens = jnp.asarray(file.use(f'{prefix}regions')), jnp.asarray(file.use(f'{prefix}tokens'), jnp.int32)
  lengths = file.use(f'{prefix}region_lengths') if ragged_regions else np.full(len(regions), regions.shape[1])
  word_mask = jnp.arange(tokens.shape[1]) < file.use(f'{prefix}word_lengths')[:, None]
  images = ImageInputs(regions, jnp.arange(regions.shape[1]) < lengths[:, None])
  return Batch(images, TextInputs(tokens, word_mask), jnp.arange(len(regions)))


def check_evaluation(file: GoldenFile, method: GPO, variables: dict) -> None:
  batch = read_batch(file, ragged_regions=True)

  @jax.jit
  def encode(variables):
    def both(method):
      images, texts = method.encode_images(batch.images), method.encode_texts(batch.texts)
      states = method.text_encoder.language_model(batch.texts.tokens, batch.texts.mask)
      return images, texts, states, method.score(images, texts)[0]

    return method.apply(variables, method=both)

  images, texts, states, similarity = encode(variables)
  file.compare('eval/similarity', similarity)
  if 'eval/text_states' in file:
    file.compare('eval/text_states', states, real=np.asarray(batch.texts.mask))
  for encoded, part in ((images, 'image'), (texts, 'text')):
    real = np.asarray(encoded.mask)
    file.compare(f'eval/{part}_fragments', encoded.fragments, real=real)
    file.compare(f'eval/{part}s', encoded.embedding)
    expected = file.use(f'pool_weights/{part}')
    most = max(len(expected), real.shape[1])
    table = rank_weights(method, variables, part, most)
    file.compare(f'pool_weights/{part}', table[: len(expected), : len(expected)])
    weights = jnp.asarray(table)[np.sum(real, axis=1) - 1, : real.shape[1]]
    file.compare(f'eval/{part}_weights', weights)
    file.compare(f'eval/{part}s_pooled', weighted_by_rank(encoded.fragments, encoded.mask, weights))


def rank_weights(method: GPO, variables: dict, part: str, most: int) -> np.ndarray:
  def weights(method):
    return getattr(method, f'{part}_encoder').pooling.weights_by_count(most)

  return np.asarray(jax.jit(functools.partial(method.apply, method=weights))(variables))


def check_training(file: GoldenFile, part: str, method: GPO, variables: dict) -> None:
  """All regions real, or ragged ones where BatchNorm sees the real rows alone; what is not in the file is not asked."""
  batch = read_batch(file, ragged_regions=part == 'masked')

  @functools.partial(jax.jit, static_argnames='phase')
  def run(params, phase):
    def loss(params):
      def both(method):
        losses = method.losses(batch, phase=phase)
        images, texts = method.encode_images(batch.images, train=True), method.encode_texts(batch.texts, train=True)
        return losses.terms['matching'], (images.embedding, texts.embedding)

      (value, embeddings), _ = method.apply({**variables, 'params': params}, method=both, mutable=['batch_stats'])
      return value, embeddings

    return jax.value_and_grad(loss, has_aux=True)(params)

  for name, phase in PHASES.items():
    if f'{part}/loss_{name}' in file:
      (value, (images, texts)), gradients = run(variables['params'], phase)
      file.compare(f'{part}/loss_{name}', value)
      file.compare(f'{part}/images', images)
      if f'{part}/texts' in file:
        file.compare(f'{part}/texts', texts)
      compare_encoders(file, f'{part}/grad_{name}', gradients, leave_out=NO_GRADIENT)

  def encode(variables):
    options = dict(train=True, mutable=['batch_stats'], method='encode_images')
    return method.apply(variables, batch.images, **options)[1]['batch_stats']['image_encoder']

  file.compare_parameters(
    f'{part}/after/image.', batch_stats_entries(), jax.jit(encode)(variables), bound=VALUE_BOUNDS[file.dtype]
  )


def compare_encoders(file: GoldenFile, prefix: str, params: dict, **options) -> None:
  entries = {'image': image_encoder_entries(), 'text': text_encoder_entries(text=text_of(file))}
  for part in entries:
    below = params[f'{part}_encoder']
    file.compare_parameters(f'{prefix}/{part}.', entries[part], below, num_layers=num_layers(file), **options)


def check_trajectory(file: GoldenFile) -> None:
  start = file.sibling(START)
  rates, hardest = file.use('learning_rates'), file.use('hardest_negative')
  config, variables = configuration(start), read_variables(start)
  falls = tuple(int(step) for step in 1 + np.flatnonzero(np.diff(rates) < 0))
  config.optimizer.update(learning_rate=float(rates[0]), weight_decay=0.01, decay_epochs=falls)
  config.optimizer.language_model_lr_factor = 1.0
  if falls:
    config.optimizer.decay_factor = float(rates[falls[0]] / rates[0])
  method = build_method(config)
  optimizer = make_optimizer(method, config, 1)  # an epoch is an update: rates may change at each
  state = create_state(jax.tree.map(jnp.asarray, variables), optimizer)
  step = functools.partial(train_step, seed=0, method=method, optimizer=optimizer, active=optimizer.active(0))
  update = jax.jit(step, static_argnames='phase')
  losses, norms = [], []
  for index, is_hardest in enumerate(hardest):
    batch = read_batch(file, f'batch/{index:02d}/', ragged_regions=False)
    state, metrics = update(state, batch, phase='hardest' if is_hardest else 'sum')
    losses.append(float(metrics['loss']))
    norms.append(float(metrics['gradient_norm']))
  file.compare('losses', losses)
  file.compare('gradient_norms', norms)
  compare_final(file, start, state)


def compare_final(file: GoldenFile, start: GoldenFile, state: TrainState) -> None:
  options = dict(bound=PARAMETER_BOUND)
  entries = {'image': image_encoder_entries(), 'text': text_encoder_entries(text=text_of(start))}
  for part in entries:
    below = state.params[f'{part}_encoder']
    file.compare_parameters(f'final/{part}.', entries[part], below, leave_out=NO_GRADIENT, **options)
  # The mean moves with the bias in front of it.
  statistics = state.variables['batch_stats']['image_encoder']
  file.compare_parameters('final/image.', batch_stats_entries(), statistics, leave_out=('mlp_norm/mean',), **options)
