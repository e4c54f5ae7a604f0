"""The names of the towers' tensors in Hugging Face's files, and ours."""

import numpy as np
from jaxtyping import Float

from hrem_jax.ports.tables import Entry, Read, dense, fused_attention, norm

# Their names of the parts of a layer: norm, attention (query, key, value, output), norm, the two products.
_CLIP_LAYER = {
  'attention_norm': 'layer_norm1',
  'attention/query': 'self_attn.q_proj',
  'attention/key': 'self_attn.k_proj',
  'attention/value': 'self_attn.v_proj',
  'attention/output': 'self_attn.out_proj',
  'feed_forward_norm': 'layer_norm2',
  'feed_forward/feed_forward_in': 'mlp.fc1',
  'feed_forward/feed_forward_out': 'mlp.fc2',
}
_OLD_ATTENTION = {
  **{f'attention/{name}': f'attention.attention.{name}' for name in ('query', 'key', 'value')},
  'attention/output': 'attention.output.dense',
}
_VIT_LAYER = {
  **_OLD_ATTENTION,
  'attention_norm': 'layernorm_before',
  'feed_forward_norm': 'layernorm_after',
  'feed_forward/feed_forward_in': 'intermediate.dense',
  'feed_forward/feed_forward_out': 'output.dense',
}
_DINO_LAYER = {
  **_OLD_ATTENTION,
  'attention_norm': 'norm1',
  'feed_forward_norm': 'norm2',
  'feed_forward/feed_forward_in': 'mlp.fc1',
  'feed_forward/feed_forward_out': 'mlp.fc2',
}
_GATED = {'feed_forward/feed_forward_in': 'mlp.weights_in', 'feed_forward/feed_forward_out': 'mlp.weights_out'}


def vit_entries(theirs: str) -> list[Entry]:
  """ViT as `hrem_jax.models.vision_tower.VisionTower`; `theirs` is a prefix with its separator, here and below."""
  return [
    *_old_embeddings(theirs, _rows),
    *_layers(f'{theirs}encoder.layer', _VIT_LAYER),
    *norm('final_norm', f'{theirs}layernorm'),
  ]


def dino_entries(theirs: str, *, gated: bool, has_registers: bool, read_positions: Read) -> list[Entry]:
  """DINOv2; `read_positions` gets the table of positions `[1 n d]`, the class token's first."""
  return [
    *_old_embeddings(theirs, read_positions),
    *([Entry('registers', f'{theirs}embeddings.register_tokens', _rows)] if has_registers else []),
    *_layers(f'{theirs}encoder.layer', _DINO_LAYER | (_GATED if gated else {})),
    Entry('layers/attention_scale', f'{theirs}encoder.layer.{{layer}}.layer_scale1.lambda1'),
    Entry('layers/feed_forward_scale', f'{theirs}encoder.layer.{{layer}}.layer_scale2.lambda1'),
    *norm('final_norm', f'{theirs}layernorm'),
  ]


def clip_vision_entries(theirs: str, *, has_projection: bool) -> list[Entry]:
  embeddings = f'{theirs}embeddings'
  return [
    Entry('patch_embedding/kernel', f'{embeddings}.patch_embedding.weight', _pixels_first),
    Entry('class_token', f'{embeddings}.class_embedding', _rows),
    Entry('position_embeddings', f'{embeddings}.position_embedding.weight'),
    *norm('embedding_norm', f'{theirs}pre_layrnorm'),  # so it is spelt
    *_layers(f'{theirs}encoder.layers', _CLIP_LAYER),
    *norm('final_norm', f'{theirs}post_layernorm'),
    *([Entry('projection/kernel', 'visual_projection.weight', np.transpose)] if has_projection else []),
  ]


def siglip_vision_entries(theirs: str, *, has_head: bool) -> list[Entry]:
  embeddings = f'{theirs}embeddings'
  head = [
    Entry('head/question', f'{theirs}head.probe', _rows),
    *fused_attention('head/attention', f'{theirs}head.attention'),
    *norm('head/feed_forward_norm', f'{theirs}head.layernorm'),
    *dense('head/feed_forward/feed_forward_in', f'{theirs}head.mlp.fc1'),
    *dense('head/feed_forward/feed_forward_out', f'{theirs}head.mlp.fc2'),
  ]
  return [
    Entry('patch_embedding/kernel', f'{embeddings}.patch_embedding.weight', _pixels_first),
    Entry('patch_embedding/bias', f'{embeddings}.patch_embedding.bias'),
    Entry('position_embeddings', f'{embeddings}.position_embedding.weight'),
    *_layers(f'{theirs}encoder.layers', _CLIP_LAYER),
    *norm('final_norm', f'{theirs}post_layernorm'),
    *(head if has_head else []),
  ]


def clip_text_entries(theirs: str) -> list[Entry]:
  return [*_text_entries(theirs), Entry('projection/kernel', 'text_projection.weight', np.transpose)]


def siglip_text_entries(theirs: str) -> list[Entry]:
  return [*_text_entries(theirs), *dense('projection', f'{theirs}head')]


def _text_entries(theirs: str) -> list[Entry]:
  return [
    Entry('word_embeddings', f'{theirs}embeddings.token_embedding.weight'),
    Entry('position_embeddings', f'{theirs}embeddings.position_embedding.weight'),
    *_layers(f'{theirs}encoder.layers', _CLIP_LAYER),
    *norm('final_norm', f'{theirs}final_layer_norm'),
  ]


def _old_embeddings(theirs: str, read_positions: Read) -> list[Entry]:
  """What ViT and DINOv2 call their embeddings."""
  embeddings = f'{theirs}embeddings'
  return [
    Entry('patch_embedding/kernel', f'{embeddings}.patch_embeddings.projection.weight', _pixels_first),
    Entry('patch_embedding/bias', f'{embeddings}.patch_embeddings.projection.bias'),
    Entry('class_token', f'{embeddings}.cls_token', _rows),
    Entry('position_embeddings', f'{embeddings}.position_embeddings', read_positions),
  ]


def _layers(theirs: str, names: dict[str, str]) -> list[Entry]:
  """The parts of all layers; `theirs` is what stands before the number of one."""
  return [
    entry
    for ours, name in names.items()
    for entry in (norm if ours.endswith('norm') else dense)(f'layers/{ours}', f'{theirs}.{{layer}}.{name}')
  ]


def _rows(table: Float[np.ndarray, '... d']) -> Float[np.ndarray, 'n d']:
  """Without leading axes of length 1."""
  return table.reshape(-1, table.shape[-1])


def _pixels_first(kernel: Float[np.ndarray, 'd 3 p p']) -> Float[np.ndarray, 'p*p*3 d']:
  """A convolution whose windows do not overlap is a product with flattened patches: pixel row, column, channel."""
  return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
