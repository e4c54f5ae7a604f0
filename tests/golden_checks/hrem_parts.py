"""HREM's parts beside the authors' program: association graph, matching losses, metrics."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from golden_checks.golden_file import GoldenFile
from golden_checks.hrem_model import WEIGHTS
from hrem_jax.models.association import Association, RelevanceMlp
from hrem_jax.models.encoded import Encoded
from hrem_jax.ops.losses import (
  cosine_similarity,
  distance_weighted_loss,
  hinge_loss,
  log_negative_weights,
  relation_loss,
)
from hrem_jax.ops.ranking import mean_ranks, ranks_from_similarity, retrieval_metrics
from hrem_jax.ops.relations import Relations, fragment_relations, gaussian_affinity, inter_blocks, intra_blocks
from hrem_jax.ops.text_blocks import Tiling
from hrem_jax.ports.release import association_entries
from hrem_jax.ports.tables import read_entries

CUTOFFS = {'coco': 1.9, 'f30k': 1.7}
EXPECTED_LOSS_BOUND = 2e-5  # the release computed this one in float32
RELATIONS_TILING = Tiling(5, 14)


def mask_of_lengths(lengths: np.ndarray, size: int) -> jax.Array:
  return jnp.asarray(np.arange(size) < lengths[:, None])


def read_association(file: GoldenFile, top_k: int | None) -> dict:
  """The relevance perceptrons for `top_k`; None: those that are not the model's own."""
  weights = file.sibling(WEIGHTS).use_below('')
  for prefix in sorted({name.split('.')[0] for name in weights if name.startswith('criterion')}, reverse=True):
    below = {name.removeprefix(f'{prefix}.'): array for name, array in weights.items() if name.startswith(f'{prefix}.')}
    if top_k in (None, len(below['adj_model.adj_learning.mlp_i2t.0.weight'])):
      return read_entries(below, association_entries(), source=WEIGHTS)
  raise ValueError(f'{file.path}: no perceptrons for top-k {top_k} in {WEIGHTS}')


def blocks_of(relations: Relations, num_images: int) -> dict[str, Relations]:
  i2i, t2t = intra_blocks(relations, num_images)
  i2t, t2i = inter_blocks(relations, num_images)
  return {'i2i': i2i, 'i2t': i2t, 't2i': t2i, 't2t': t2t}


def check_graph(file: GoldenFile) -> None:
  """The graph of given embeddings, and the gradients of `probe = reg_loss + sum over blocks of relation * R`."""
  top_k, keep = int(file.use('topk')), float(file.use('threshold'))
  params = read_association(file, top_k)
  images, texts = (
    Encoded(
      jnp.asarray(file.use(f'{kind}_emb')),
      jnp.asarray(file.use(fragments)),
      mask_of_lengths(file.use(f'{kind}_len'), file.use(fragments).shape[1]),
    )
    for kind, fragments in (('img', 'img_regions'), ('cap', 'cap_words'))
  )
  weights = {block: file.use(f'R_{block}') for block in ('i2i', 'i2t', 't2i', 't2t')}
  association = Association(top_k=top_k, keep=keep)

  def probe(v, u, params):
    relations = association.apply({'params': params}, images.replace(embedding=v), texts.replace(embedding=u))
    blocks, affinity = blocks_of(relations, len(v)), gaussian_affinity(v, u)
    loss = relation_loss(blocks['i2t'].relevance, affinity) + relation_loss(blocks['t2i'].relevance, affinity.T)
    return loss + sum(jnp.sum(blocks[name].relevance * weights[name]) for name in weights), (loss, blocks)

  run = jax.jit(jax.value_and_grad(probe, argnums=(0, 1, 2), has_aux=True))
  (value, (loss, blocks)), gradients = run(images.embedding, texts.embedding, params)
  file.compare('probe', value)
  file.compare('reg_loss', loss)
  for name, block in blocks.items():
    file.compare(f'connect_{name}', block.connection)
    file.compare(f'relation_{name}', block.relevance)
  file.compare_gradient('g_img_emb', gradients[0])
  file.compare_gradient('g_cap_emb', gradients[1])
  entries = [entry._replace(theirs=entry.theirs.removeprefix('adj_model.')) for entry in association_entries()]
  file.compare_parameters('g_', entries, gradients[2])
  for direction, relations in zip(('i2t', 't2i'), relate(file, top_k), strict=True):
    file.compare(f'{direction}_mean', relations.mean)


def relate(file: GoldenFile, top_k: int):
  regions, words = jnp.asarray(file.use('img_regions')), jnp.asarray(file.use('cap_words'))
  masks = (mask_of_lengths(file.use(f'{kind}_len'), x.shape[1]) for kind, x in (('img', regions), ('cap', words)))
  run = jax.jit(functools.partial(fragment_relations, top_k=top_k, tiling=RELATIONS_TILING))
  return run(regions, next(masks), words, next(masks))


def check_trimmed_relations(file: GoldenFile) -> None:
  """Every pair as the release computes it when trimmed to its own lengths."""
  params = read_association(file, int(file.use('topk')) if 'topk' in file else None)
  for direction, relations in zip(
    ('i2t', 't2i'), relate(file, params['i2t']['hidden']['kernel'].shape[0]), strict=True
  ):
    file.compare(f'{direction}_mean', relations.mean)
    file.compare(f'{direction}_relation', RelevanceMlp().apply({'params': params[direction]}, relations))


def read_set(file: GoldenFile, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Embeddings of images and texts, and which belong to the same image."""
  images, texts, ids = (file.use(f'{name}/{key}') for key in ('im', 's', 'img_ids'))
  return images, texts, ids[:, None] == ids[None, :]


def check_hinge(file: GoldenFile) -> None:
  @functools.partial(jax.jit, static_argnames='hardest')
  def run(similarity, is_positive, *, hardest):
    return jax.value_and_grad(lambda x: hinge_loss(x, is_positive, hardest_negative=hardest).loss)(similarity)

  for name in file.names():
    if found := re.fullmatch(r'(.+)/mv([01])_mr([01])/loss', name):
      prefix = name.removesuffix('/loss')
      images, texts, same_image = read_set(file, found[1])
      images, texts = images.astype(np.float64), texts.astype(np.float64)
      # Identical embeddings shall tie on every machine: a float32 product may round them differently.
      similarity = np.round(images @ texts.T, 9).astype(file.dtype)
      is_positive = same_image if found[3] == '1' else np.eye(len(images), dtype=bool)
      loss, gradient = run(similarity, is_positive, hardest=found[2] == '1')
      gradient = np.asarray(gradient, np.float64)
      file.compare(name, loss)
      file.compare_gradient(f'{prefix}/g_im', gradient @ texts)
      file.compare_gradient(f'{prefix}/g_s', gradient.T @ images)


def check_distance_weighted(file: GoldenFile) -> None:
  for name in file.names():
    if (found := re.fullmatch(r'(.+)/(coco|f30k)/weight_im', name)) and f'{found[1]}/{found[2]}/loss' in file:
      _check_distance_weighted_set(file, found[1], found[2])


def _check_distance_weighted_set(file: GoldenFile, name: str, dataset: str) -> None:
  """The loss where every anchor's negative is the most likely one, chances, and the mean of the loss over all draws."""
  prefix, cutoff = f'{name}/{dataset}', CUTOFFS[dataset]
  images, texts, is_positive = read_set(file, name)
  # Places of pairs and what was drawn follow from the rest; means of draws are the release's own noise.
  described = ('anchor_idx', 'pos_idx', 'neg_idx_im', 'neg_idx_s', 'raised_im', 'raised_s', 'empirical_')
  for array in file.names(f'{prefix}/'):
    if array.removeprefix(f'{prefix}/').startswith(described):
      file.use(array)
  if file.use(f'{prefix}/raised_im') or file.use(f'{prefix}/raised_s'):
    # An anchor without eligible negatives silences its whole direction there, by underflow; here the others learn.
    file.set_aside(f'{prefix}/{key}' for key in ('loss', 'g_', 'weight_', 'expected_'))
    return

  @jax.jit
  def run(images, texts, is_positive):
    def loss(images, texts):
      return distance_weighted_loss(cosine_similarity(images, texts), is_positive, None, cutoff=cutoff).loss

    return jax.value_and_grad(loss, argnums=(0, 1))(images, texts)

  loss, gradients = run(images, texts, is_positive)
  file.compare(f'{prefix}/loss', loss, bound=1e-5 if file.dtype == np.float32 else 1e-6)
  file.compare_gradient(f'{prefix}/g_im', gradients[0])
  file.compare_gradient(f'{prefix}/g_s', gradients[1])
  similarity = np.asarray(cosine_similarity(jnp.asarray(images), jnp.asarray(texts)))
  for side, scores, positive in (('im', similarity, is_positive), ('s', similarity.T, is_positive.T)):
    log_weights = np.asarray(
      log_negative_weights(jnp.asarray(scores), jnp.asarray(positive), cutoff=cutoff), np.float64
    )
    chances = np.exp(log_weights - np.max(log_weights, axis=1, keepdims=True))
    chances /= np.sum(chances, axis=1, keepdims=True)
    _compare_chances(file, f'{prefix}/weight_{side}', chances)
    violation = np.maximum(0, 0.2 + scores[:, :, None] - scores[:, None, :])  # anchor, negative, positive
    mean = np.einsum('ac,acp,ap->', chances, violation, positive)
    file.compare(f'{prefix}/expected_loss_{side}', mean, bound=EXPECTED_LOSS_BOUND)
    # Of one direction, the most likely negatives drawn.
    drawn = violation[np.arange(len(scores)), np.argmax(log_weights, axis=1)]
    file.compare(f'{prefix}/loss_{side}', np.sum(drawn * positive))


def _compare_chances(file: GoldenFile, name: str, chances: np.ndarray) -> None:
  """In the rows where underflow has left the release its digits: its rows need not add up to 1."""
  released = file.use(name).astype(np.float64)
  total = np.sum(released, axis=1, keepdims=True)
  kept = total[:, 0] > 1e-4
  # Log weights of 300 and more: one digit of float32 is 3e-5.
  file.compare(
    name, np.where(kept[:, None], chances * total, released), bound=3e-5 if file.dtype == np.float32 else None
  )


def check_metrics(file: GoldenFile) -> None:
  """Ranks and recalls of score matrices; under ties the release's lie between the rules."""
  for sims in (name for name in file.names() if name.endswith('/sims')):
    prefix, similarity = sims.removesuffix('sims'), file.use(sims)
    owner = np.arange(similarity.shape[1]) // (similarity.shape[1] // similarity.shape[0])
    ranks = ranks_from_similarity(similarity, owner)
    metrics = {ties: retrieval_metrics(ranks, ties=ties) for ties in ('optimistic', 'pessimistic')}
    for side, of_side, scores in (('i2t', ranks.image_to_text, similarity), ('t2i', ranks.text_to_image, similarity.T)):
      low, high = (mean_ranks(of_side, ties=ties) for ties in ('optimistic', 'pessimistic'))
      file.compare(f'{prefix}{side}_rank_lo', low)
      # The release's upper bound also counts the image's own captions that are level with its best one.
      high = high + of_side.tied_positives - 1 if side == 'i2t' else high
      file.compare(f'{prefix}{side}_rank_hi', high)
      for key in ('ranks', 'ranks_stable'):
        name = f'{prefix}{side}_{key}'
        file.compare(name, np.clip(file.use(name), low, high))
      name = f'{prefix}{side}_top1'
      first = file.use(name).astype(int)
      is_best = scores[np.arange(len(scores)), first] == scores.max(1)
      file.compare(name, np.where(is_best, first, np.argmax(scores, axis=1)))
      keys = [f'{side}/{key}' for key in ('r1', 'r5', 'r10', 'median_rank', 'mean_rank')]
      bounds = np.array([[metrics[ties][key] for key in keys] for ties in metrics])
      name = f'{prefix}{side}_metrics'
      file.compare(name, np.clip(file.use(name), bounds.min(0), bounds.max(0)))
