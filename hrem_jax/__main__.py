from hrem_jax.cli import run

run()
