"""absl flags with a configuration file behind one of them; whatever is wrong there is the user's to mend."""

from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from hrem_jax.errors import UserError, one_line

CONFIG_HELP = 'Configuration file, FILE.py:VARIANT; --config.section.key=value changes it.'
DATA_HELP = 'Directory of the data, with NAME_precomp in it; takes the place of config.data.directory.'


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  """Parses `argv` (the program first) and returns what is no flag.

  Raises:
    UserError: A flag, the configuration file, a variant, or a key or value of the configuration is wrong.
  """
  try:
    positional = flag_values(argv)
    getattr(flag_values.config, 'data', None)  # a file that cannot be read raises only where it is looked at
    return positional
  except (AttributeError, KeyError) as error:
    raise UserError(f'the configuration has no key {one_line(error.args[0])}') from error
  except (flags.Error, OSError, TypeError, ValueError) as error:
    if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith('config.'):
      hint = 'where the data is can be said alone, with --data=DIRECTORY'
      raise UserError(f'--{error.flagname} needs --config=configs/NAME.py; {hint}') from error
    raise UserError(one_line(error)) from error


def read_configuration(arguments: Sequence[str]) -> ml_collections.ConfigDict:
  """The configuration that `--config=...` and `--config.section.key=value` describe."""
  flag_values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', None, CONFIG_HELP, flag_values=flag_values)
  _, *unexpected = parse(flag_values, ['hrem_jax', *arguments])
  if unexpected:
    raise UserError(f'unexpected argument {unexpected[0]!r}')
  if flag_values.config is None:
    raise UserError('--config is missing: --config=configs/NAME.py')
  return flag_values.config
