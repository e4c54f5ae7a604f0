"""hrem_jax: image-text matching by learning relations among instances (HREM, CVPR 2023), in JAX and Flax."""

__version__ = '0.1.0'
