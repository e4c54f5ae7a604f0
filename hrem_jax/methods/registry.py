"""The table of methods, and what follows from one of its names: a configuration, a module, first variables."""

import functools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections

from hrem_jax import configuration
from hrem_jax.data.batch import Batch, ImageInputs, TextInputs
from hrem_jax.errors import UserError
from hrem_jax.methods import gpo, hrem, scan
from hrem_jax.methods.method import Entry, Method
from hrem_jax.settings import checks, defaults

METHODS: dict[str, Entry] = {'hrem': hrem.METHOD, 'gpo': gpo.METHOD, 'scan': scan.METHOD}
DEFAULT = next(iter(METHODS))

# Shapes of the optional inputs of one instance.
EXTRAS = {'embeddings': lambda config: (config.model.embedding_size,)}


def entry_of(name: str) -> Entry:
  """Raises UserError, with the names that there are, where there is no such method."""
  if name not in METHODS:
    raise UserError(f'config.method is {name!r}, expected one of {", ".join(METHODS)}')
  return METHODS[name]


def title_of(config: ml_collections.ConfigDict) -> str:
  """How tables call the method of a configuration."""
  return entry_of(config.method).about.title


def default_config(method: str = DEFAULT) -> ml_collections.ConfigDict:
  """The sections that all methods share with the recipe of `method`, and its own section; locked.

  Raises:
    UserError: There is no such method.
  """
  entry, config = entry_of(method), configuration.common_sections()
  config.method = method
  config[method] = defaults(entry.settings)
  config.lock()  # a misspelt key in a configuration file is an error
  config.update_from_flattened_dict(entry.recipe)
  return config


def validate(config: ml_collections.ConfigDict, *, num_devices: int = 1) -> None:
  """Raises UserError, naming the key, the value and what was expected, where a setting cannot work."""
  entry, name = entry_of(config.method), config.method
  configuration.validate(config, default_config(name), checks(entry.settings, name), num_devices=num_devices)
  entry.check(config)


def from_json(text: str, *, source: str) -> ml_collections.ConfigDict:
  """The configuration that `configuration.to_json` wrote, over today's defaults: keys that came later keep theirs.

  Raises:
    UserError: `text` is not JSON, or has a key that is not known or a value that cannot work.
  """
  try:
    values = json.loads(text)
    if 'method' not in values:  # from before there were others
      values = _moved(values, METHODS[DEFAULT].moved) | {'method': DEFAULT}
    config = default_config(values['method'])
    config.update(configuration.as_tuples(values))
    validate(config)
  except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{source}: not a configuration of hrem_jax: {error}') from error
  return config


def _moved(values: dict, keys: Mapping[str, str]) -> dict:
  """A configuration as it was written, with the values at `keys` where these stand today."""
  flat = {'.'.join(path): value for path, value in _leaves(values)}
  nested: dict = {}
  for key, value in flat.items():
    *sections, name = keys.get(key, key).split('.')
    functools.reduce(lambda tree, section: tree.setdefault(section, {}), sections, nested)[name] = value
  return nested


def _leaves(values: dict, path: tuple[str, ...] = ()):
  for key, value in values.items():
    yield from _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


def build_method(config: ml_collections.ConfigDict) -> Method:
  """The module that a whole configuration describes.

  Raises:
    UserError: Captions are packed, and the method cannot tell them apart in a row.
  """
  method = entry_of(config.method).build(config)
  if config.data.pack and not method.packs:
    raise UserError(f'config.data.pack is True, expected False: {config.method} takes one caption a row')
  return method


def init_variables(method: Method, config: ml_collections.ConfigDict, rng: jax.Array) -> dict:
  """Random parameters and everything else that the method keeps, from shapes alone: `{'params': ..., ...}`."""
  return _init(method, example_batch(method, config), rng)


def example_batch(method: Method, config: ml_collections.ConfigDict) -> Batch:
  """Two pairs of nothing, of the sizes that the configuration says."""
  regions, words = method.num_regions or 2, method.text_width or 2
  extras = {name: jnp.zeros((2, *EXTRAS[name](config))) for name in method.wants}
  images = ImageInputs(jnp.zeros((2, regions, config.model.region_size)), jnp.ones((2, regions), bool), extras)
  return Batch(images, TextInputs(jnp.zeros((2, words), jnp.int32), jnp.ones((2, words), bool)), jnp.arange(2))


@functools.partial(jax.jit, static_argnames='method')  # one program instead of one per initializer
def _init(method: Method, batch: Batch, rng: jax.Array) -> dict:
  variables = method.init(rng, batch, phase=method.phases[-1], train=False, method='losses')
  return {**variables, 'params': method.first_params(dict(variables['params']))}


def described() -> dict[str, dict]:
  """Every method for a person: title, paper, kind, inputs, published figures, a note, a configuration."""
  found = {}
  for name, entry in METHODS.items():
    config, about = default_config(name), entry.about
    found[name] = {
      'title': about.title,
      'paper': about.paper,
      'kind': entry.build(config).kind,
      'inputs': about.inputs or 'regions and captions',
      'rsum': dict(about.figures),
      'note': about.note,
      'configuration': entry.configuration,
    }
  return found


def listing() -> str:
  """`described` as text."""
  lines = []
  for name, about in described().items():
    figures = ', '.join(f'{row} {rsum}' for row, rsum in about['rsum'].items())
    lines += [
      f'{name:8} {about["title"]}: {about["paper"]}',
      f'         {about["kind"]}; needs {about["inputs"]}; --config={about["configuration"]}',
      f'         published rSum: {figures}' + (f' ({about["note"]})' if about['note'] else ''),
    ]
  return '\n'.join(lines)
