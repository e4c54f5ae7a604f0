"""Linen modules: they hold the parameters and call the functions of `hrem_jax.ops`."""
