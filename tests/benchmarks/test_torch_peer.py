"""The PyTorch peer of the benchmarks computes what we compute, from the same weights and inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from benchmarks import torch_model  # noqa: E402
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs  # noqa: E402
from hrem_jax.methods.registry import build_method, default_config  # noqa: E402
from hrem_jax.ops import relations  # noqa: E402
from hrem_jax.ports.release import read_release  # noqa: E402
from hrem_jax.training.setup import make_optimizer  # noqa: E402
from hrem_jax.training.state import create_state  # noqa: E402
from hrem_jax.training.step import train_step  # noqa: E402

SIZE, REGIONS, WORDS, NUM_REGIONS, VOCABULARY, TOP_K = 11, 13, 17, 7, 37, 5


def make_config():
  config = default_config()
  config.model.update(region_size=REGIONS, embedding_size=24)
  config.hrem.update(num_heads=3, dropout=0.0, relevance_weight=1.5)
  config.hrem.association.top_k = TOP_K
  config.model.bert.update(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=29,
    max_positions=19,
    dropout=0.0,
  )
  return config


def make_arrays(*, ragged: bool) -> Batch:
  """Some images have two captions; lengths are full, or not, with junk in the padding."""
  rng = np.random.default_rng(0)
  lengths = [rng.integers(TOP_K - 2 if ragged else most, most + 1, SIZE) for most in (NUM_REGIONS, WORDS)]
  for length, most in zip(lengths, (NUM_REGIONS, WORDS), strict=True):
    length[0] = most
  masks = [np.arange(most) < length[:, None] for length, most in zip(lengths, (NUM_REGIONS, WORDS), strict=True)]
  regions = rng.standard_normal((SIZE, NUM_REGIONS, REGIONS), np.float32)
  tokens = rng.integers(1, VOCABULARY, (SIZE, WORDS)).astype(np.int32)
  ids = np.array([0, 0, 1, 2, 3, 3, *range(4, 9)], np.int32)
  return Batch(ImageInputs(regions, masks[0]), TextInputs(tokens, masks[1]), ids)


def as_torch(batch: Batch) -> torch_model.TorchBatch:
  images, texts = batch.images, batch.texts
  arrays = images.regions, images.mask, texts.tokens.astype(np.int64), texts.mask, batch.image_ids
  return torch_model.TorchBatch(*map(torch.from_numpy, arrays))


def make_peer(config, **options) -> torch_model.Peer:
  """With weights large enough that fragments, and so relations, differ."""
  torch.manual_seed(0)
  peer = torch_model.Peer(config, sample=False, **options)
  with torch.no_grad():
    for parameter in peer.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return peer


def ours(peer, kind: str = 'value') -> dict:
  """The peer's parameters, or their gradients, in our tree."""

  def arrays(module) -> dict[str, np.ndarray]:
    tensors = module.state_dict()
    if kind == 'gradient':
      tensors |= {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in module.named_parameters()}
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}

  parts = arrays(peer.image_encoder), arrays(peer.text_encoder), arrays(peer.criterion)
  return read_release(*parts, num_layers=2, source='the peer')


def our_outputs(config, variables, batch: Batch, *, train: bool):
  batch = jax.tree.map(jnp.asarray, batch)
  method = build_method(config)
  apply = jax.jit(functools.partial(method.apply, phase='graph', train=train, mutable=['batch_stats']))
  found, _ = apply(variables, batch, rngs={'dropout': jax.random.key(0)})
  return found, method.objective(found, batch.image_ids, None).terms


@pytest.mark.parametrize(('ragged', 'train'), [(False, True), (False, False), (True, False)])
def test_embeddings_and_losses_are_ours(ragged, train):
  config, batch = make_config(), make_arrays(ragged=ragged)
  peer = make_peer(config, ignore_padding=ragged).train(train)
  found, terms = our_outputs(config, ours(peer), batch, train=train)
  with torch.no_grad():
    their_terms, theirs = peer.losses(as_torch(batch))
  embeddings = {
    'images': found.images.embedding,
    'texts': found.texts.embedding,
    'enhanced_images': found.enhanced_images,
    'enhanced_texts': found.enhanced_texts,
  }
  assert theirs.keys() == embeddings.keys()
  for name, embedding in embeddings.items():
    assert theirs[name].shape == embedding.shape == (SIZE, 24)
    assert np.ptp(np.asarray(embedding), axis=0).max() > 0.1  # not all alike
    np.testing.assert_allclose(theirs[name], embedding, atol=1e-4, err_msg=name)
  assert their_terms.keys() == terms.keys()
  for name, term in terms.items():
    assert float(term) > 0
    assert float(their_terms[name]) == pytest.approx(float(term), rel=1e-4), name


def test_padding_counts_in_the_peer_unless_it_is_told_not_to():
  config, batch = make_config(), make_arrays(ragged=True)
  with torch.no_grad():
    terms = [
      float(make_peer(config, ignore_padding=told).eval().losses(as_torch(batch))[0]['relation']) for told in (0, 1)
    ]
  assert abs(terms[0] - terms[1]) > 1e-4 * terms[1]


@pytest.mark.parametrize('ragged', [False, True])
def test_the_dense_graph_is_our_streamed_one(ragged):
  batch, rng = make_arrays(ragged=ragged), np.random.default_rng(1)
  regions, words = (rng.standard_normal((SIZE, count, 19), np.float32) for count in (NUM_REGIONS, WORDS))
  streamed = relations.fragment_relations(
    *map(jnp.asarray, (regions, batch.images.mask, words, batch.texts.mask)), top_k=TOP_K
  )
  masks = tuple(map(torch.from_numpy, (batch.images.mask, batch.texts.mask))) if ragged else None
  dense = torch_model.fragment_relations(torch.from_numpy(regions), torch.from_numpy(words), TOP_K, masks)
  for (mean, strongest), expected in zip(dense, streamed, strict=True):
    assert mean.shape == expected.mean.shape == (SIZE, SIZE)
    assert strongest.shape == expected.strongest.shape == (SIZE, SIZE, TOP_K)
    np.testing.assert_allclose(mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(strongest, expected.strongest, atol=1e-6)


def test_an_update_moves_the_parameters_as_ours_does():
  config, batch = make_config(), make_arrays(ragged=False)
  peer, method = make_peer(config), build_method(config)
  optimizer = make_optimizer(method, config, 1000)
  state = create_state(ours(peer), optimizer)
  before = jax.device_get(state.params)
  options = dict(**steps.options(method, optimizer, graph=True), sample_negatives=False)
  step = jax.jit(functools.partial(train_step, **options))
  updated, metrics = step(state, jax.tree.map(jnp.asarray, batch), 0)
  total = peer.update(as_torch(batch))
  assert total == pytest.approx(float(metrics['loss']), rel=1e-4)
  assert float(metrics['gradient_norm']) > config.optimizer.clip_norm  # clipping takes part
  after, gradients = ours(peer), ours(peer, 'gradient')['params']
  num_moved = 0
  for (path, theirs), expected, start, gradient in zip(
    jax.tree_util.tree_leaves_with_path(after['params']),
    *map(jax.tree.leaves, (updated.params, before, gradients)),
    strict=True,
  ):
    assert theirs.shape == expected.shape
    # Adam's first step is a sign: of a gradient that is rounding it says nothing.
    clear = np.abs(gradient) > 1e-5
    num_moved += clear.sum()
    moved, wanted = (theirs - start)[clear], (np.asarray(expected) - start)[clear]
    np.testing.assert_allclose(moved, wanted, rtol=2e-2, atol=1e-6, err_msg=str(path))
  assert num_moved > 0.8 * sum(x.size for x in jax.tree.leaves(before))
  for theirs, expected in zip(
    *map(jax.tree.leaves, (after['batch_stats'], updated.collections['batch_stats'])), strict=True
  ):
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
