"""Named departures from a configuration, as each method lists them.

`--config=configs/f30k_bert.py:without_relevance`; several are joined by `+`, and any setting is a variant too:
`standalone+hrem.association.top_k=5`. `python -m hrem_jax ablate --list` prints them all.
"""

import ast
from collections.abc import Mapping

import ml_collections

from hrem_jax.errors import UserError, one_line
from hrem_jax.methods.method import Variant
from hrem_jax.methods.registry import DEFAULT, METHODS, entry_of


def with_variant(config: ml_collections.ConfigDict, variant: str | None) -> ml_collections.ConfigDict:
  """`config` with the settings of `variant`; an empty one changes nothing.

  Raises:
    UserError: A name is unknown or missing, a setting has no such key or another type, or two of them contradict.
  """
  config, said = config.copy_and_resolve_references(), {}
  for part in _parts(variant or ''):
    for key, value in settings_of(part, entry_of(config.method).variants).items():
      other, before = said.setdefault(key, (part, value))
      if value != before:
        raise UserError(f'variant {variant!r} contradicts itself: {key} is {before!r} by {other}, {value!r} by {part}')
      try:
        config.update_from_flattened_dict({key: value})
      except (KeyError, AttributeError) as error:
        raise UserError(f'variant {part!r}: the configuration has no key {key}') from error
      except (TypeError, ValueError) as error:
        raise UserError(f'variant {part!r}: {key}: {one_line(error)}') from error
  return config


def split_method(variant: str | None) -> tuple[str, str]:
  """The method that a variant begins with, the default one where it begins with none, and the rest of the variant.

  So one configuration file serves all methods: `configs/f8k_bigru.py:scan+i2t_avg`.
  """
  first, _, rest = (variant or '').partition('+')
  return (first, rest) if first in METHODS else (DEFAULT, variant or '')


def split_text(variant: str | None, texts: tuple[str, ...] = ('bert', 'bigru')) -> tuple[str, str]:
  """The text encoder that a variant begins with, the first of `texts` where it begins with none, and the rest."""
  first, _, rest = (variant or '').partition('+')
  return (first, rest) if first in texts else (texts[0], variant or '')


def _parts(variant: str) -> list[str]:
  parts = variant.split('+') if variant else []
  if '' in parts:
    where = f'part {parts.index("") + 1} of {len(parts)} is empty'
    raise UserError(f'variant {variant!r}: {where}, expected names or settings with one + between them')
  return parts


def settings_of(part: str, variants: Mapping[str, Variant]) -> Mapping:
  """The settings of one of the names or of one `key=value`."""
  if part in variants:
    members = variants[part].members
    if not members:
      return variants[part].settings
    raise UserError(
      f'variant {part!r} is no setting: it is the mean of the scores of {" and ".join(members)}, trained '
      f'separately; `python -m hrem_jax ablate --variants={",".join((*members, part))}` trains and averages them, '
      '`python -m hrem_jax.main --mode=evaluate --workdir=ONE --workdir=OTHER` averages what is trained'
    )
  key, is_setting, value = part.partition('=')
  if not is_setting:
    raise UserError(f'variant {part!r} is unknown; there are {", ".join(variants)}, and any section.key=value')
  try:
    return {key: ast.literal_eval(value)}
  except (ValueError, SyntaxError):
    return {key: value}  # a word


def describe(variant: str, variants: Mapping[str, Variant]) -> str:
  """For a table: what the names stand for, settings as they are."""
  return ', '.join(variants[part].about if part in variants else part for part in _parts(variant))


def listing() -> str:
  """A line per name, method by method: what it stands for, and what it sets."""
  lines = []
  for name, entry in METHODS.items():
    width = max(map(len, entry.variants), default=0)
    lines += [f'{name} ({entry.about.title})'] if entry.variants else []
    for key, variant in entry.variants.items():
      means = f' {" and ".join(variant.members)}; for `ablate` only' if variant.members else ':'
      settings = ''.join(f' {setting}={str(value).replace(" ", "")}' for setting, value in variant.settings.items())
      lines.append(f'  {key:{width}}  {variant.about}{means}{settings}')
  return '\n'.join(lines)
