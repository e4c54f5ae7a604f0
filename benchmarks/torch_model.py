"""The update step in PyTorch as the authors' release does its work: what `torch_peer.py` compares with.

Written for comparison from the description of the method (BERT and Fusion only), out of plain torch modules and the
`BertModel` of transformers. Captions are padded to the longest of the batch, all layers work on the padding, and the
association graph is a dense tensor `[i, t, r, w]`. Parameters have the names of the release's checkpoints, so that
`hrem_jax.ports.release.read_release` reads them and both programs can be given the same weights.

`ignore_padding` leaves padding out of the association graph as hrem_jax does; the release does not, and is timed so.
"""

from typing import NamedTuple

import ml_collections
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

MIN_DISTANCE, NORM_EPSILON = 0.5, 1e-8


class TorchBatch(NamedTuple):
  """Row `j` of the regions and of the captions are a pair."""

  regions: Tensor  # float [b, r, f]
  region_mask: Tensor  # bool [b, r]
  tokens: Tensor  # int [b, w]
  word_mask: Tensor  # bool [b, w]
  image_ids: Tensor  # int [b]


class Encoded(NamedTuple):
  embedding: Tensor  # [b, d], unit norm
  fragments: Tensor  # [b, k, d]
  mask: Tensor  # [b, k]


def unit(x: Tensor, dim: int = -1) -> Tensor:
  return x / (x.norm(dim=dim, keepdim=True) + NORM_EPSILON)


def transformer(size: int, config: ml_collections.ConfigDict) -> nn.TransformerEncoder:
  layer = nn.TransformerEncoderLayer(size, config.num_heads, size, config.dropout, batch_first=True)
  return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


class Pooling(nn.Module):
  """The fragment graph and the pooling, which both encoders end with."""

  def __init__(self, config: ml_collections.ConfigDict):
    super().__init__()
    self.aggr = transformer(config.embedding_size, config)
    self._share = config.residual_weight

  def pool(self, fragments: Tensor, mask: Tensor) -> Encoded:
    related = self.aggr(fragments, src_key_padding_mask=~mask)
    real = mask[..., None]
    strongest = fragments.masked_fill(~real, -10000.0).topk(2, dim=1).values.mean(1)
    mean = related.masked_fill(~real, 0.0).sum(1) / real.sum(1)
    return Encoded(unit(self._share * strongest + (1 - self._share) * mean), fragments, mask)


class Mlp(nn.Module):
  def __init__(self, ins: int, hidden: int, outs: int):
    super().__init__()
    self.layers = nn.ModuleList([nn.Linear(ins, hidden), nn.Linear(hidden, outs)])
    self.bns = nn.ModuleList([nn.BatchNorm1d(hidden)])

  def forward(self, x: Tensor) -> Tensor:
    rows = self.layers[0](x.flatten(0, 1))
    return self.layers[1](F.relu(self.bns[0](rows))).view(*x.shape[:2], -1)


class Projection(nn.Module):
  def __init__(self, ins: int, outs: int):
    super().__init__()
    self.fc, self.mlp = nn.Linear(ins, outs), Mlp(ins, outs // 2, outs)

  def forward(self, x: Tensor) -> Tensor:
    return self.fc(x) + self.mlp(x)


class ImageEncoder(Pooling):
  def __init__(self, config: ml_collections.ConfigDict):
    super().__init__(config)
    self.fc = Projection(config.region_size, config.embedding_size)

  def forward(self, regions: Tensor, mask: Tensor) -> Encoded:
    return self.pool(self.fc(regions), mask)


class TextEncoder(Pooling):
  def __init__(self, config: ml_collections.ConfigDict):
    super().__init__(config)
    sizes = config.bert
    bert = transformers.BertConfig(
      vocab_size=sizes.vocab_size, hidden_size=sizes.hidden_size, num_hidden_layers=sizes.num_layers,
      num_attention_heads=sizes.num_heads, intermediate_size=sizes.intermediate_size,
      max_position_embeddings=sizes.max_positions, layer_norm_eps=sizes.norm_epsilon,
      hidden_dropout_prob=sizes.dropout, attention_probs_dropout_prob=sizes.dropout,
    )  # fmt: skip
    self.bert = transformers.BertModel(bert, add_pooling_layer=False)
    self.linear = nn.Linear(sizes.hidden_size, config.embedding_size)

  def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
    states = self.bert(tokens, attention_mask=mask.long()).last_hidden_state
    return self.pool(self.linear(states), mask)


@torch.no_grad()
def fragment_relations(
  regions: Tensor, words: Tensor, top_k: int, masks: tuple[Tensor, Tensor] | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
  """`(p, q)` of images asking texts `[i, t]`, `[i, t, k]` and of texts asking images `[t, i]`, `[t, i, k]`.

  Without the masks of regions and words padding takes part in norms, maxima and means, as in the release.
  """
  matches = F.leaky_relu(torch.einsum('ird,twd->itrw', unit(regions), unit(words)), 0.1)
  region_is, word_is = (None, None) if masks is None else (masks[0][:, None, :, None], masks[1][None, :, None, :])
  if masks is not None:
    matches = matches.masked_fill(~(region_is & word_is), 0.0)

  def summary(dim: int, own_is: Tensor | None, asker_is: Tensor | None) -> tuple[Tensor, Tensor]:
    normalised, askers = unit(matches, dim), 5 - dim
    if masks is None:
      best = normalised.amax(askers)
      return best.mean(-1), best.topk(top_k).values
    best, own = normalised.masked_fill(~asker_is, -torch.inf).amax(askers), own_is.squeeze(askers)
    strongest = best.masked_fill(~own, -torch.inf).topk(top_k).values
    mean = best.masked_fill(~own, 0.0).sum(-1) / own.sum(-1)
    return mean, strongest.masked_fill(strongest.isinf(), 0.0)

  i2t, t2i = summary(2, region_is, word_is), summary(3, word_is, region_is)
  return i2t, tuple(x.transpose(0, 1) for x in t2i)


def affinity(x: Tensor, y: Tensor, sigma: float = 1.0) -> Tensor:
  return torch.exp(-torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist') / sigma)


def most_similar(similarity: Tensor, keep: float) -> Tensor:
  kept = max(int(keep * similarity.shape[1]), 1)
  return similarity >= similarity.topk(kept, dim=1).values[:, -1:]


class AdjLearning(nn.Module):
  """The two relevance MLPs; the last layer is number 3, as in the release."""

  def __init__(self, top_k: int):
    super().__init__()
    layers = [nn.Sequential(nn.Linear(top_k, top_k), nn.ReLU(), nn.Identity(), nn.Linear(top_k, 1)) for _ in range(2)]
    self.mlp_i2t, self.mlp_t2i = layers


class AdjModel(nn.Module):
  def __init__(self, top_k: int):
    super().__init__()
    self.adj_learning = AdjLearning(top_k)


class Graph(nn.Module):
  """Association graph and Fusion."""

  def __init__(self, config: ml_collections.ConfigDict, *, ignore_padding: bool):
    super().__init__()
    self._config, self._ignore_padding = config, ignore_padding
    self.adj_model = AdjModel(config.association.top_k)
    self.gnn = transformer(config.embedding_size, config)

  def forward(self, images: Encoded, texts: Encoded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Enhanced embeddings of images and texts, and the relevances i2t and t2i."""
    settings, mlps = self._config.association, self.adj_model.adj_learning
    masks = (images.mask, texts.mask) if self._ignore_padding else None
    (p_i2t, q_i2t), (p_t2i, q_t2i) = fragment_relations(images.fragments, texts.fragments, settings.top_k, masks)
    v, u = images.embedding, texts.embedding
    i2t, t2i = mlps.mlp_i2t(q_i2t)[..., 0] + p_i2t, mlps.mlp_t2i(q_t2i)[..., 0] + p_t2i
    relevance = _blocks([[affinity(v, v, settings.sigma), i2t], [t2i, affinity(u, u, settings.sigma)]])
    with torch.no_grad():
      rows = [[v @ v.T, p_i2t], [p_t2i, u @ u.T]]
      connection = _blocks([[most_similar(block, settings.keep) for block in row] for row in rows])
    bias = (self._config.relevance_weight * relevance).masked_fill(~connection, -torch.inf)
    enhanced = unit(self.gnn(torch.cat([v, u])[None], mask=bias)[0])
    return enhanced[: len(v)], enhanced[len(v) :], i2t, t2i


def _blocks(rows: list[list[Tensor]]) -> Tensor:
  return torch.cat([torch.cat(row, dim=1) for row in rows])


def matching_loss(
  images: Tensor, texts: Tensor, is_positive: Tensor, config: ml_collections.ConfigDict, sample: bool
) -> Tensor:
  """Triplet loss with distance-weighted negatives, both directions; without `sample` the heaviest negatives."""
  similarity, m = images @ texts.T, config.density_dimension

  def one_direction(similarity: Tensor, is_positive: Tensor) -> Tensor:
    distance = (2 - 2 * similarity.detach()).clamp(min=0).sqrt().clamp(min=MIN_DISTANCE)
    log_weight = (2 - m) * distance.log() - (m - 3) / 2 * (1 - distance**2 / 4).clamp(min=1e-8).log()
    log_weight = log_weight.masked_fill(is_positive | (distance >= config.cutoff), -torch.inf)
    has_negative = log_weight.isfinite().any(1)
    heaviest = log_weight.amax(1, keepdim=True).clamp(min=-1e30)
    weight = torch.where(has_negative[:, None], (log_weight - heaviest).exp(), 1.0)
    shape = similarity.shape
    chosen = weight.multinomial(shape[1], replacement=True) if sample else weight.argmax(1, keepdim=True).expand(shape)
    violation = (config.margin + similarity.gather(1, chosen) - similarity).clamp(min=0)
    return violation[is_positive & has_negative[:, None]].sum()

  return one_direction(similarity, is_positive) + one_direction(similarity.T, is_positive.T)


def relation_loss(relevance: Tensor, target: Tensor) -> Tensor:
  log_p, log_q = relevance.log_softmax(1), target.detach().log_softmax(1)
  return (log_p.exp() * (log_p - log_q)).sum(1).mean()


class Peer(nn.Module):
  """Encoders, graph, objective and optimizer; `config` is a whole configuration of hrem_jax."""

  def __init__(self, config: ml_collections.ConfigDict, *, ignore_padding: bool = False, sample: bool = True):
    super().__init__()
    self._config, self._sample = config, sample
    self.image_encoder, self.text_encoder = ImageEncoder(config.model), TextEncoder(config.model)
    self.criterion = Graph(config.model, ignore_padding=ignore_padding)
    rate, bert = config.optimizer.learning_rate, list(self.text_encoder.bert.parameters())
    others = [x for name, x in self.named_parameters() if not name.startswith('text_encoder.bert.')]
    groups = [dict(params=others), dict(params=bert, lr=rate * config.optimizer.language_model_lr_factor)]
    self.optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=config.optimizer.weight_decay)

  def losses(self, batch: TorchBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The unweighted terms of the objective after the warm-up, and all embeddings."""
    images = self.image_encoder(batch.regions, batch.region_mask)
    texts = self.text_encoder(batch.tokens, batch.word_mask)
    v, u = images.embedding, texts.embedding
    enhanced_v, enhanced_u, i2t, t2i = self.criterion(images, texts)
    is_positive = batch.image_ids[:, None] == batch.image_ids[None, :]

    def loss(images: Tensor, texts: Tensor) -> Tensor:
      return matching_loss(images, texts, is_positive, self._config.loss, self._sample)

    target = affinity(v, u)
    terms = {
      'base': loss(v, u),
      'cross': loss(v, enhanced_u) + loss(enhanced_v, u),
      'enhanced': loss(enhanced_v, enhanced_u),
      'relation': relation_loss(i2t, target) + relation_loss(t2i, target.T),
    }
    return terms, {'images': v, 'texts': u, 'enhanced_images': enhanced_v, 'enhanced_texts': enhanced_u}

  def update(self, batch: TorchBatch) -> float:
    """One step of AdamW; returns the loss."""
    self.train()
    self.optimizer.zero_grad()
    terms, _ = self.losses(batch)
    weights = self._config.loss
    total = terms['base'] + weights.cross_weight * terms['cross']
    total = total + weights.enhanced_weight * terms['enhanced'] + weights.relation_weight * terms['relation']
    total.backward()
    nn.utils.clip_grad_norm_(self.parameters(), self._config.optimizer.clip_norm)
    self.optimizer.step()
    return total.item()
