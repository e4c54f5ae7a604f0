"""hrem_jax: image-text matching by learning relations among instances (HREM, CVPR 2023), in JAX and Flax."""

__version__ = '0.1.0'


def restore(workdir, *, step: int | None = None):
  """A trained run as a `hrem_jax.retrieval.matcher.Matcher`: encode images and sentences, compare, evaluate."""
  from hrem_jax.retrieval import matcher  # JAX is loaded where it is needed, not by `import hrem_jax`

  return matcher.restore(workdir, step=step)
