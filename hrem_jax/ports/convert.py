"""A checkpoint of a public program as our parameters and settings."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from hrem_jax.errors import UserError, shown
from hrem_jax.ports import gpo, release, scan
from hrem_jax.ports.public_program import Layers, Options, Program, StateDicts
from hrem_jax.ports.release_tensors import check_bytes, named_tensors
from hrem_jax.ports.tables import read_entries
from hrem_jax.ports.torch_names import Namespace
from hrem_jax.ports.torch_pickle import read_checkpoint

MOST_STEPS = 2**31 - 1  # the state of a training counts them in 32 bits

# By method: the programs whose checkpoints can be read.
PROGRAMS: Mapping[str, Program] = {'hrem': release.PROGRAM, 'gpo': gpo.PROGRAM, 'scan': scan.PROGRAM}
# In files of several programs, but without effect on any embedding.
UNUSED = r'bert\.pooler\.|bert\.embeddings\.position_ids$|.*\.num_batches_tracked$'
# With an effect, and in no program that we have: more layers, an image backbone.
FOREIGN = r'rnn\..*_l[1-9]|(fc\.)?mlp\.layers\.[2-9]|backbone\.|cnn\.'


@dataclasses.dataclass(frozen=True)
class ReleaseModel:
  """A converted checkpoint, in memory."""

  method: str  # whose checkpoint it is
  about: str  # what was found, for a person
  variables: dict  # {'params': ..., 'batch_stats': ...} of the method's module, float32
  settings: dict[str, Any]  # by the dotted keys of our configuration
  step: int
  rsum: float | None  # of the split that the program selected on
  left_out: list[str]  # tensors that no table of ours knows
  guessed_heads: int | None  # of its BERT, where nothing better is known


def read_release_model(path: pathlib.Path, method: str | None = None) -> ReleaseModel:
  """Reads and translates; nothing is written.

  Args:
    path: The `.pth`.
    method: Whose it is; None: as the names of its tensors tell.

  Raises:
    UserError: The file is not such a checkpoint, or it has layers that our encoders do not have.
  """
  source, content = str(path), read_checkpoint(path)
  state_dicts = _state_dicts(content, source)
  check_bytes([array for part in state_dicts for array in part.arrays()], path)
  method = _method_of(state_dicts, method, source)
  program = PROGRAMS[method]
  foreign = sorted(name for part in state_dicts for name in part if re.match(f'{FOREIGN}|{program.foreign}', name))
  if foreign:
    raise UserError(f'{source}: layers that hrem_jax does not have, its embeddings would differ: {listed(foreign)}')
  layers, options = program.layers(state_dicts, source), _options(content, source)
  if any(_flag(options, name, source) for name in ('no_imgnorm', 'no_txtnorm')):
    raise UserError(
      f'{source}: trained without unit-norm embeddings (opt.no_imgnorm, opt.no_txtnorm), which we have not'
    )
  variables, left_out = _read(layers, state_dicts, program, source)
  return ReleaseModel(
    method=method,
    about=layers.about,
    variables=variables,
    settings=layers.settings | program.settings(options, source),
    step=_number(content, 'Eiters', int, source) or 0,
    rsum=_number(content, 'best_rsum', float, source),
    left_out=left_out,
    guessed_heads=program.settings(options, source).get('hrem.num_heads'),
  )


def _method_of(state_dicts: StateDicts, given: str | None, source: str) -> str:
  """The method that was given, or the one that the names fit; UserError where there is none or more than one."""
  if given is not None:
    if given not in PROGRAMS:
      raise UserError(f'--method is {shown(given)}, expected one of {", ".join(PROGRAMS)}')
    return given
  found = [method for method, program in PROGRAMS.items() if program.fits(state_dicts)]
  if len(found) == 1:
    return found[0]
  known = '; '.join(f'{method}: {program.names}' for method, program in PROGRAMS.items())
  names = listed(sorted(name[:40] for name in (*state_dicts.image, *state_dicts.text))) or 'nothing'
  what = f'could be of {" or ".join(found)}' if found else f'are of no program that is known ({known})'
  raise UserError(f'{source}: its tensors ({names}) {what}; --method says whose checkpoint it is')


def _read(layers: Layers, state_dicts: StateDicts, program: Program, source: str) -> tuple[dict, list[str]]:
  """The variables, and the names of the tensors that no table knows."""
  num_layers = layers.settings.get('model.bert.num_layers', 0)
  variables: dict = {}
  for part in layers.parts:
    collection, module = part.ours.split('/')
    tree = read_entries(part.tensors, part.entries, source=source, num_layers=num_layers)
    variables.setdefault(collection, {})[module] = tree
  left_out = []
  for tensors in state_dicts:
    entries = [entry for part in layers.parts if part.tensors is tensors for entry in part.entries]
    known = {entry.theirs.format(layer=layer) for entry in entries for layer in range(max(num_layers, 1))}
    left_out += sorted(name for name in set(tensors) - known if not re.match(f'{UNUSED}|{program.unused}', name))
  return variables, left_out


def listed(names: list[str], shown: int = 4) -> str:
  return ', '.join(names[:shown]) + (f' and {len(names) - shown} more' if len(names) > shown else '')


def _state_dicts(content: Any, source: str) -> StateDicts:
  model = content.get('model') if isinstance(content, dict) else None
  if not isinstance(model, list | tuple) or len(model) not in (2, 3) or not all(isinstance(x, dict) for x in model):
    raise UserError(f"{source}: no checkpoint of the release: expected is 'model' = [image, text] state dictionaries")
  criterion = model[2] if len(model) == 3 else content.get('criterion')
  parts = [*model[:2], criterion if isinstance(criterion, dict) else {}]
  return StateDicts(*(named_tensors(part, source) for part in parts))


def _options(content: dict, source: str) -> Options:
  options = content.get('opt')
  options = options.values if isinstance(options, Namespace) else options
  if options is not None and not isinstance(options, dict):
    raise UserError(f"{source}: 'opt' is a {type(options).__name__}, expected an argparse.Namespace")
  return options or {}


def _flag(options: Options, name: str, source: str) -> bool:
  """Whether an option is set; UserError where its value is none that a flag has."""
  value = options.get(name, False)
  if value is not None and not isinstance(value, bool | int):
    raise UserError(f'{source}: the option {name} is {shown(value)}, expected True or False')
  return bool(value)


def _number(content: dict, name: str, kind: type, source: str) -> Any:
  """The number of this name, None where there is none; UserError where it is something else or cannot be kept."""
  value = content.get(name)
  if value is None:
    return None
  if type(value) not in (int, float) or not 0 <= value <= MOST_STEPS:
    raise UserError(f'{source}: {name} is {shown(value)}, expected a number from 0 to {MOST_STEPS:,}')
  return kind(value)
