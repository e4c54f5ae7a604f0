"""One file a command of `python -m hrem_jax`: `add` declares it, `run` does it (heavy imports inside)."""
