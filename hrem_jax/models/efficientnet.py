"""EfficientNet-lite (Tan and Le 2019; the variant without squeeze-and-excite) as a frozen encoder of pictures."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hrem_jax.models.picture_features import PictureFeatures
from hrem_jax.ops.grids import cut_patches

STRIDES, KERNELS = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)  # of the seven stages
STEM_WIDTH, HEAD_WIDTH, EXPANSION = 32, 1280, 6


class Patches(nn.Module):
  """The pixels themselves, `rows x rows` squares of them: features without any weights."""

  rows: int = 8

  def __call__(self, pixels: Float[Array, 'b h w 3']) -> PictureFeatures:
    side = pixels.shape[1] // self.rows
    patches = cut_patches(jnp.asarray(pixels), side)
    return PictureFeatures(patches.reshape(len(pixels), self.rows, self.rows, side * side * 3))


class ConvNorm(nn.Module):
  """A convolution without bias with TensorFlow's padding, then the running statistics' normalisation."""

  features: int
  kernel: int = 1
  stride: int = 1
  groups: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b i j f']:
    window, strides = (self.kernel, self.kernel), (self.stride, self.stride)
    x = nn.Conv(self.features, window, strides, 'SAME', feature_group_count=self.groups, use_bias=False, name='conv')(x)
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name='norm')(x)


class Block(nn.Module):
  """Inverted bottleneck: expand, look around in each channel, project."""

  features: int
  kernel: int
  stride: int
  expansion: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b i j f']:
    width, hidden = x.shape[-1], x
    if self.expansion > 1:
      hidden = nn.relu6(ConvNorm(width * self.expansion, name='expand')(hidden))
    inner = hidden.shape[-1]
    hidden = nn.relu6(ConvNorm(inner, self.kernel, self.stride, groups=inner, name='depthwise')(hidden))
    hidden = ConvNorm(self.features, name='project')(hidden)
    return x + hidden if self.stride == 1 and width == self.features else hidden


class EfficientNetLite(nn.Module):
  """Pixels to the last grid of 1280 features, a 32nd of the pixels' rows and columns."""

  widths: tuple[int, ...]  # of the seven stages
  repeats: tuple[int, ...]

  @nn.compact
  def __call__(self, pixels: Float[Array, 'b h w 3']) -> PictureFeatures:
    x = nn.relu6(ConvNorm(STEM_WIDTH, 3, 2, name='stem')(pixels))
    number = 0
    for stage, (width, repeats) in enumerate(zip(self.widths, self.repeats, strict=True)):
      for repeat in range(repeats):
        stride = STRIDES[stage] if repeat == 0 else 1
        expansion = 1 if stage == 0 else EXPANSION
        x = Block(width, KERNELS[stage], stride, expansion, name=f'block_{number}')(x)
        number += 1
    return PictureFeatures(nn.relu6(ConvNorm(HEAD_WIDTH, name='head')(x)))
