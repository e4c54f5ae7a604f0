"""Used from somebody's program, hrem_jax leaves its logging, its hooks and its warnings as they are."""

import logging
import subprocess
import sys
import warnings

import synthetic

from hrem_jax.training import loop


def host() -> list:
  loggers = [logging.getLogger(name) for name in (None, 'absl', 'asyncio', 'orbax', 'jax')]
  return [
    *((logger.level, list(logger.filters), list(logger.handlers)) for logger in loggers),
    sys.unraisablehook,
    sys.excepthook,
    list(warnings.filters),
  ]


def test_a_training_does_not_change_its_host(tmp_path):
  synthetic.write_data_set(tmp_path)
  config = synthetic.tiny_config(tmp_path)
  config.hrem.interaction, config.data.length_buckets, config.training.num_epochs = 'none', (12,), 1
  before = host()
  loop.train(config, tmp_path / 'run')
  assert host() == before


def test_the_program_is_quiet_about_what_is_raised_anyway():
  program = (
    'import logging, sys\n'
    'from hrem_jax import cli\n'
    'try:\n  cli.run(["--help"])\nexcept SystemExit:\n  pass\n'
    'assert logging.getLogger("absl").filters and sys.unraisablehook is not sys.__unraisablehook__\n'
  )
  assert subprocess.run([sys.executable, '-c', program], capture_output=True, check=False).returncode == 0
