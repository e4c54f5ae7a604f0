"""Trains (`--config=configs/NAME.py --workdir=DIR`) or evaluates (`--mode=evaluate --workdir=DIR`)."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from hrem_jax.command_line import CONFIG_HELP, DATA_HELP, parse
from hrem_jax.errors import UserError, fail, refusals_are_mistakes
from hrem_jax.paths import local_path, run_folder

CONFIG = config_flags.DEFINE_config_file('config', None, CONFIG_HELP)
WORKDIR = flags.DEFINE_multi_string(
  'workdir', None, 'Folder of the run: checkpoints, metrics, results; several to evaluate the mean of their scores.'
)
MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate'], 'What to do.')
DATA = flags.DEFINE_string('data', None, DATA_HELP)
OUTPUT = flags.DEFINE_string('output', None, 'JSON file for the results of several workdirs.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, where no cluster says it (launch/).')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are, with --coordinator.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0, with --coordinator.')
flags.mark_flag_as_required('workdir')


def main(argv: list[str]) -> None:
  # After the flags: --help and mistakes need not wait for JAX.
  from hrem_jax import distributed

  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}: options are written --name=value')
  told = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
  with distributed.processes(*told), refusals_are_mistakes():
    train_or_evaluate()


def train_or_evaluate() -> None:
  from hrem_jax.retrieval.evaluation import evaluate_best, evaluate_ensemble
  from hrem_jax.training import loop

  workdir, *others = map(run_folder, WORKDIR.value)
  output = OUTPUT.value and local_path(OUTPUT.value)
  if output and not others:
    raise UserError('--output is for several workdirs; one has its results in WORKDIR/results.json')
  if MODE.value == 'evaluate' and others:
    evaluate_ensemble([workdir, *others], CONFIG.value, data=DATA.value, output=output)
  elif MODE.value == 'evaluate':
    evaluate_best(workdir, CONFIG.value, data=DATA.value)
  elif others:
    raise UserError(f'--mode=train takes one --workdir, found {1 + len(others)}')
  elif CONFIG.value is None:
    raise UserError('--config is missing: --config=configs/NAME.py')
  else:
    if DATA.value is not None:
      CONFIG.value.data.directory = DATA.value
    loop.train(CONFIG.value, workdir)


def run() -> None:
  def guarded_main(argv: list[str]) -> None:
    try:
      main(argv)
    except UserError as error:
      fail(error)

  def guarded_flags(argv: list[str]) -> list[str]:
    try:
      return parse(flags.FLAGS, argv)
    except UserError as error:
      fail(error)
    except SystemExit as end:
      sys.exit(0 if end.code == 1 else end.code)  # absl ends --help with status 1, as if it were a mistake

  logging.set_verbosity(logging.ERROR)  # Orbax warns of its own defaults
  app.run(guarded_main, flags_parser=guarded_flags)


if __name__ == '__main__':
  run()
