"""Slow loops for METHOD sections 1, 2 and 4, written from the page; imports nothing of hrem_jax.

Everything is float64. Names of indices: `i` images, `t` texts, `r` regions, `w` words, `a` who asks, `c` who is asked.
"""

import math

import numpy as np

NORM_EPSILON = 1e-8


def numerical_gradient(function, x, step=1e-6):
  """Central finite differences of a scalar `function` at `x`, entry by entry."""
  x = np.array(x, dtype=np.float64)
  gradient = np.zeros_like(x)
  for place in np.ndindex(*x.shape):
    original = x[place]
    x[place] = original + step
    above = function(x)
    x[place] = original - step
    below = function(x)
    x[place] = original
    gradient[place] = (above - below) / (2 * step)
  return gradient


def assert_close(found, expected, *, rtol=0.0, atol=0.0):
  """Shapes first: `assert_allclose` broadcasts."""
  found, expected = np.asarray(found), np.asarray(expected)
  assert found.shape == expected.shape, (found.shape, expected.shape)
  np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def dot(x, y):
  total = 0.0
  for one, other in zip(x, y, strict=True):
    total += float(one) * float(other)
  return total


def norm(x):
  return math.sqrt(dot(x, x))


def unit(x):
  """Section 1: `x / (|x| + 1e-8)` of one vector."""
  length = norm(x)
  return [float(value) / (length + NORM_EPSILON) for value in x]


def l2_normalize(rows):
  return np.array([unit(row) for row in rows])


# --- section 1: pooling -----------------------------------------------------------------------------------------------


def masked_mean(fragments, mask):
  size, channels = len(fragments), fragments.shape[2]
  result = np.zeros((size, channels))
  for b in range(size):
    for d in range(channels):
      values = [float(fragments[b, k, d]) for k in range(fragments.shape[1]) if mask[b, k]]
      result[b, d] = sum(values) / len(values) if values else 0.0
  return result


def top_k_mean(fragments, mask, top_k):
  size, channels = len(fragments), fragments.shape[2]
  result = np.zeros((size, channels))
  for b in range(size):
    for d in range(channels):
      values = [float(fragments[b, k, d]) for k in range(fragments.shape[1]) if mask[b, k]]
      largest = sorted(values, reverse=True)[:top_k]
      result[b, d] = sum(largest) / len(largest) if largest else 0.0
  return result


def pool_fragments(fragments, related, mask, residual_weight=0.8):
  """`0.8 * mean of the top-2 values per channel before the graph + 0.2 * mean after it`, not normalised."""
  return residual_weight * top_k_mean(fragments, mask, 2) + (1 - residual_weight) * masked_mean(related, mask)


# --- section 2: association graph -------------------------------------------------------------------------------------


def leaky_relu(x):
  return x if x > 0 else 0.1 * x


def mean_and_strongest(matches, top_k):
  """p and q of one pair: the mean, and the K largest in descending order, 0 where there are fewer."""
  largest = sorted(matches, reverse=True)[:top_k]
  return sum(matches) / len(matches), largest + [0.0] * (top_k - len(largest))


def best_of_asked(asker, asked):
  """For every fragment of `asked` its best match among `asker`, each asker normalised over the asked fragments."""
  normalised = [unit([leaky_relu(dot(one, other)) for other in asked]) for one in asker]
  return [max(row[k] for row in normalised) for k in range(len(asked))]


def fragment_relations(regions, region_mask, words, word_mask, top_k):
  """`(p_i2t [i, t], q_i2t [i, t, K]), (p_t2i [t, i], q_t2i [t, i, K])`; padding is cut off before anything else."""
  num_images, num_texts = len(regions), len(words)
  p_i2t, q_i2t = np.zeros((num_images, num_texts)), np.zeros((num_images, num_texts, top_k))
  p_t2i, q_t2i = np.zeros((num_texts, num_images)), np.zeros((num_texts, num_images, top_k))
  for i in range(num_images):
    real_regions = [unit(regions[i, r]) for r in range(regions.shape[1]) if region_mask[i, r]]
    for t in range(num_texts):
      real_words = [unit(words[t, w]) for w in range(words.shape[1]) if word_mask[t, w]]
      # Texts asking about images: normalised over the words, the maximum over the regions, a vector over words.
      p_t2i[t, i], q_t2i[t, i] = mean_and_strongest(best_of_asked(real_regions, real_words), top_k)
      # Images asking about texts: normalised over the regions, the maximum over the words, a vector over regions.
      p_i2t[i, t], q_i2t[i, t] = mean_and_strongest(best_of_asked(real_words, real_regions), top_k)
  return (p_i2t, q_i2t), (p_t2i, q_t2i)


def keep_most_similar(similarity, keep=0.5):
  """Each row keeps its `floor(keep * columns)` most similar columns, all ties at the threshold too."""
  connection = np.zeros(similarity.shape, dtype=bool)
  num_columns = similarity.shape[1]
  num_kept = max(math.floor(keep * num_columns), 1)
  for a in range(len(similarity)):
    for c in range(num_columns):
      num_above = sum(1 for other in range(num_columns) if similarity[a, other] > similarity[a, c])
      connection[a, c] = num_above < num_kept
  return connection


def cosine(x, y):
  result = np.zeros((len(x), len(y)))
  for a in range(len(x)):
    for c in range(len(y)):
      result[a, c] = dot(unit(x[a]), unit(y[c]))
  return result


def connection_matrix(image_embeddings, text_embeddings, p_i2t, p_t2i, keep=0.5):
  images, texts = len(image_embeddings), len(text_embeddings)
  connection = np.zeros((images + texts, images + texts), dtype=bool)
  connection[:images, :images] = keep_most_similar(cosine(image_embeddings, image_embeddings), keep)
  connection[:images, images:] = keep_most_similar(p_i2t, keep)
  connection[images:, :images] = keep_most_similar(p_t2i, keep)
  connection[images:, images:] = keep_most_similar(cosine(text_embeddings, text_embeddings), keep)
  return connection


def gaussian_affinity(x, y, sigma=1.0, squared=False):
  result = np.zeros((len(x), len(y)))
  for a in range(len(x)):
    for c in range(len(y)):
      distance = norm([float(one) - float(other) for one, other in zip(x[a], y[c], strict=True)])
      result[a, c] = math.exp(-(distance**2 if squared else distance) / sigma)
  return result


def relevance(p, q, hidden_kernel, hidden_bias, output_kernel, output_bias):
  """`MLP(q) + p` of an inter block, MLP = `K -> K -> ReLU -> 1`; kernels are (in, out)."""
  result = np.zeros(p.shape)
  for a in range(p.shape[0]):
    for c in range(p.shape[1]):
      hidden = [max(dot(q[a, c], hidden_kernel[:, j]) + hidden_bias[j], 0.0) for j in range(hidden_kernel.shape[1])]
      result[a, c] = dot(hidden, output_kernel[:, 0]) + output_bias[0] + p[a, c]
  return result


def attention_weights(query, key, mask=None, bias=None):
  """`softmax(Q K^T / sqrt(d_head) + bias, only where mask)`; query `[b, a, h, e]`, mask and bias `[b, a, c]`."""
  size, askers, heads, head_size = query.shape
  asked = key.shape[1]
  weights = np.zeros((size, heads, askers, asked))
  for b in range(size):
    for h in range(heads):
      for a in range(askers):
        visible = [c for c in range(asked) if mask is None or mask[b, a, c]]
        logits = {}
        for c in visible:
          logits[c] = dot(query[b, a, h], key[b, c, h]) / math.sqrt(head_size)
          logits[c] += 0.0 if bias is None else float(bias[b, a, c])
        total = sum(math.exp(logit - max(logits.values())) for logit in logits.values())
        for c in visible:
          weights[b, h, a, c] = math.exp(logits[c] - max(logits.values())) / total
  return weights


# --- section 4: objective ---------------------------------------------------------------------------------------------


def same_image(image_ids):
  return np.array([[one == other for other in image_ids] for one in image_ids])


def hinge_loss(similarity, is_positive, margin=0.2, hardest_negative=True):
  """`(loss, anchors without negatives)`; anchor and positive are row and column `j`, negatives show another image."""
  loss, without = 0.0, 0
  size = len(similarity)
  for scores, positive in ((similarity, is_positive), (similarity.T, is_positive.T)):
    for a in range(size):
      negatives = [c for c in range(size) if c != a and not positive[a, c]]
      violations = [max(0.0, margin + scores[a, c] - scores[a, a]) for c in negatives]
      without += not negatives
      if violations:
        loss += max(violations) if hardest_negative else sum(violations)
  return loss, without


def log_negative_weights(similarity, is_positive, cutoff, dimension=512):
  result = np.full(similarity.shape, -np.inf)
  for a in range(similarity.shape[0]):
    for c in range(similarity.shape[1]):
      distance = max(math.sqrt(max(2 - 2 * float(similarity[a, c]), 0.0)), 0.5)
      if not is_positive[a, c] and distance < cutoff:
        result[a, c] = (2 - dimension) * math.log(distance)
        result[a, c] -= (dimension - 3) / 2 * math.log(1 - distance**2 / 4)
  return result


def probabilities(log_weights):
  """Of every column to be drawn, per row; a row without any eligible column is all 0."""
  result = np.zeros(log_weights.shape)
  for a in range(len(log_weights)):
    heaviest = max(log_weights[a])
    if heaviest == -np.inf:
      continue
    weights = [math.exp(log_weight - heaviest) for log_weight in log_weights[a]]
    result[a] = [weight / sum(weights) for weight in weights]
  return result


def heaviest_columns(log_weights):
  """The first of the heaviest columns of every row, None in a row without any eligible column."""
  result = []
  for row in log_weights:
    best = None
    for c in range(len(row)):
      if row[c] > (-np.inf if best is None else row[best]):
        best = c
    result.append(best)
  return result


def triplet_loss(similarity, is_positive, negatives, has_negative, margin=0.2):
  """One direction: over every (anchor, positive) with `negatives[a, p]` the column drawn for it."""
  loss = 0.0
  for a in range(similarity.shape[0]):
    for p in range(similarity.shape[1]):
      if is_positive[a, p] and has_negative[a]:
        loss += max(0.0, margin + similarity[a, negatives[a, p]] - similarity[a, p])
  return loss


def distance_weighted_loss(similarity, is_positive, log_weights_pair, margin=0.2):
  """`(loss, anchors without negatives)` when every anchor gets its heaviest negative.

  `log_weights_pair` holds those of the images and those of the texts: they are constants, no gradient flows to them.
  """
  loss, without = 0.0, 0
  directions = ((similarity, is_positive), (similarity.T, is_positive.T))
  for (scores, positive), log_weights in zip(directions, log_weights_pair, strict=True):
    for a, negative in enumerate(heaviest_columns(log_weights)):
      positives = [p for p in range(scores.shape[1]) if positive[a, p]]
      if negative is None:
        without += bool(positives)
        continue
      for p in positives:
        loss += max(0.0, margin + scores[a, negative] - scores[a, p])
  return loss, without


def expected_triplet_loss(similarity, is_positive, log_weights, margin=0.2):
  """One direction: the mean of the loss over all draws, and its variance (draws are independent)."""
  mean, variance = 0.0, 0.0
  chances = probabilities(log_weights)
  for a in range(similarity.shape[0]):
    for p in range(similarity.shape[1]):
      if is_positive[a, p]:
        violations = [max(0.0, margin + similarity[a, c] - similarity[a, p]) for c in range(similarity.shape[1])]
        first = dot(chances[a], violations)
        mean += first
        variance += dot(chances[a], [violation**2 for violation in violations]) - first**2
  return mean, variance


def log_softmax(row):
  largest = max(row)
  total = sum(math.exp(float(value) - largest) for value in row)
  return [float(value) - largest - math.log(total) for value in row]


def relation_loss(relevance_block, affinity):
  """One direction of L_reg: mean over the rows of `KL(softmax(relevance) || softmax(affinity))`."""
  total = 0.0
  for a in range(len(relevance_block)):
    log_p, log_q = log_softmax(relevance_block[a]), log_softmax(affinity[a])
    total += sum(math.exp(one) * (one - other) for one, other in zip(log_p, log_q, strict=True))
  return total / len(relevance_block)
