"""Flickr30K, SCAN, BiGRU; variants `t2i_lse` (the default), `t2i_avg`, `i2t_lse`, `i2t_avg`.

Paper (1K test): rSum 465.0 for the mean of the scores of `t2i_avg` and `i2t_lse`.
"""

from hrem_jax.methods.registry import default_config
from hrem_jax.methods.variants import with_variant


def get_config(variant: str = ''):
  config = default_config('scan')
  config.data.name = 'f30k'
  return with_variant(config, '' if variant == 'bigru' else variant)
