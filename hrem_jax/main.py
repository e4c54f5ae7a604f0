"""`python -m hrem_jax.main --config=configs/NAME.py --workdir=DIR`: flags, then one call."""

import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

from hrem_jax.errors import UserError, fail

CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file; --config.section.key=value changes it.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run: checkpoints, metrics, results.', required=True)
MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate'], 'What to do.')


def main(argv: list[str]) -> None:
  from hrem_jax.training import loop  # after the flags: --help and mistakes need not wait for JAX

  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}: options are written --name=value')
  workdir = pathlib.Path(WORKDIR.value).expanduser()
  if MODE.value == 'evaluate':
    loop.evaluate_best(workdir, CONFIG.value)
  elif CONFIG.value is None:
    raise UserError('--config is missing: --config=configs/NAME.py')
  else:
    loop.train(CONFIG.value, workdir)


def parse_flags(argv: list[str]) -> list[str]:
  """Flags, with the configuration file behind one of them; whatever is wrong there is the user's to mend."""
  try:
    positional = flags.FLAGS(argv)
    getattr(CONFIG.value, 'data', None)  # a file that cannot be read raises only where it is looked at
    return positional
  except (AttributeError, KeyError) as error:
    raise UserError(f'the configuration has no key {" ".join(str(error.args[0]).split())}') from error
  except (flags.Error, OSError, TypeError, ValueError) as error:
    raise UserError(' '.join(str(error).split())) from error


def run() -> None:
  def guarded_main(argv: list[str]) -> None:
    try:
      main(argv)
    except UserError as error:
      fail(error)

  def guarded_flags(argv: list[str]) -> list[str]:
    try:
      return parse_flags(argv)
    except UserError as error:
      fail(error)

  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  app.run(guarded_main, flags_parser=guarded_flags)


if __name__ == '__main__':
  run()
