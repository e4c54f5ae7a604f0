"""absl flags with a configuration file behind one of them; whatever is wrong there is the user's to mend."""

import os
import traceback
from collections.abc import Sequence
from typing import NoReturn

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
  except UserError:
    raise  # a variant's
  except Exception as error:
    if (problem := _problem_in_file(argv, error)) is not None:
      raise UserError(problem) from error
    _refuse_flags(error)


def _problem_in_file(argv: Sequence[str], error: BaseException) -> str | None:
  """What is wrong where an exception came out of the configuration file, which is Python and may raise any."""
  told = [argument.split('=', 1)[-1] for argument in argv if argument.startswith(('--config=', '-config='))]
  path = told[-1].split(':')[0] if told else None
  if path is None:
    return None
  if not os.path.isfile(path):
    return f'{path}: no such file; expected is a configuration, --config=FILE.py or --config=FILE.py:VARIANT'
  causes = [error]  # the flag wraps some of them, and quotes the traceback
  while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
    causes.append(cause)
  for cause in reversed(causes):
    line = _line_in_file(path, cause)
    if line is not None:
      return f'{path}: line {line}: {type(cause).__name__}: {one_line(cause)}'
  if isinstance(causes[-1], TypeError) and 'get_config()' in str(causes[-1]):
    return f'{path}: {one_line(causes[-1])}; expected is get_config() or get_config(variant)'
  if isinstance(error, AttributeError) and 'get_config' in str(error):
    return f'{path}: no function get_config, which makes the configuration'
  is_loading = isinstance(error, OSError | ImportError | UnicodeError | SyntaxError)
  return f'{path}: {type(error).__name__}: {one_line(error)}' if is_loading else None


def _line_in_file(path: str, error: BaseException) -> int | None:
  """The line of the configuration file in which an exception was raised."""
  if isinstance(error, SyntaxError) and error.filename and os.path.abspath(error.filename) == os.path.abspath(path):
    return error.lineno
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(path)]
  return lines[-1] if lines else None


def _refuse_flags(error: Exception) -> NoReturn:
  """Says what is wrong with a flag, or with a key or value of the configuration."""
  if isinstance(error, AttributeError | KeyError):
    raise UserError(f'the configuration has no key {one_line(error.args[0])}') from error
  if isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith('config.'):
    hint = 'where the data is can be said alone, with --data=DIRECTORY'
    raise UserError(f'--{error.flagname} needs --config=configs/NAME.py; {hint}') from error
  if isinstance(error, flags.Error | OSError | TypeError | ValueError):
    raise UserError(one_line(error)) from error
  raise error


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
