"""Named departures from a configuration: the paper's ablations and more (METHOD section 7).

`--config=configs/f30k_bert.py:without_relevance`; several are joined by `+`, and any setting is a variant too:
`standalone+model.association.top_k=5`. `python -m hrem_jax ablate --list` prints them all.
"""

import ast
import dataclasses

import ml_collections

from hrem_jax.errors import UserError, one_line


@dataclasses.dataclass(frozen=True)
class Variant:
  """What a name stands for."""

  about: str
  settings: dict
  paper: tuple[float, ...] = ()  # Flickr30K, BERT, Fusion: R@1 R@5 image to text, R@1 R@5 text to image


FULL, FULL_MEMBERS = 'full', ('fusion', 'standalone')  # Full* is not trained: it averages the scores of two runs
FULL_ABOUT = 'Full*: mean of both'

VARIANTS = {
  'fusion': Variant('Fusion, everything on', {'model.interaction': 'fusion'}, (83.3, 96.0, 63.5, 87.1)),
  'standalone': Variant('Standalone', {'model.interaction': 'standalone'}),
  'standalone_shared': Variant(
    'Standalone, one set of layers for both modalities',
    {'model.interaction': 'standalone', 'model.share_weights': True},
  ),
  # Ablation (a)
  'no_fragment_graphs': Variant(
    'no fragment graphs', {'model.image_graph': False, 'model.text_graph': False}, (81.5, 94.9, 62.3, 86.2)
  ),
  'text_graph_only': Variant('textual fragment graph only', {'model.image_graph': False}, (81.8, 95.1, 62.4, 86.2)),
  'image_graph_only': Variant('visual fragment graph only', {'model.text_graph': False}, (83.1, 95.9, 63.2, 87.0)),
  'no_instance_level': Variant('no instance level', {'model.interaction': 'none'}, (80.1, 94.8, 60.9, 85.3)),
  'intra_only': Variant('intra-modal relations only', {'model.association.blocks': 'intra'}, (80.5, 94.7, 61.2, 85.2)),
  'inter_only': Variant('inter-modal relations only', {'model.association.blocks': 'inter'}, (82.2, 95.5, 62.6, 86.4)),
  # Ablation (b)
  'without_connection': Variant('without A: all connected', {'model.association.keep': 1.0}, (81.4, 95.1, 61.5, 86.3)),
  'without_relevance': Variant(
    'without S', {'model.relevance_weight': 0.0, 'loss.relation_weight': 0.0}, (81.7, 95.3, 61.9, 86.5)
  ),
  'without_mixed_losses': Variant('without the mixed losses', {'loss.cross_weight': 0.0}, (81.6, 95.6, 61.8, 86.7)),
  'without_relation_loss': Variant('without L_reg', {'loss.relation_weight': 0.0}, (82.8, 95.8, 62.9, 86.9)),
  'without_neighbours': Variant('without neighbour batches', {'data.sampler': 'shuffled'}, (82.8, 95.9, 63.1, 87.0)),
  'neighbours': Variant('with neighbour batches', {'data.sampler': 'neighbours'}, (83.3, 96.0, 63.5, 87.1)),
  # Sizes and kinds
  'squared_affinity': Variant('intra relevance from squared distances', {'model.association.squared': True}),
  'sigma_05': Variant('sigma 0.5', {'model.association.sigma': 0.5}),
  'sigma_20': Variant('sigma 2', {'model.association.sigma': 2.0}),
  'keep_25': Variant('a quarter of each row connected', {'model.association.keep': 0.25}),
  'keep_75': Variant('three quarters of each row connected', {'model.association.keep': 0.75}),
  'top_k_5': Variant('5 strongest fragment matches', {'model.association.top_k': 5}),
  'top_k_20': Variant('20 strongest fragment matches', {'model.association.top_k': 20}),
  'lambda_05': Variant('lambda 0.5', {'model.relevance_weight': 0.5}),
  'lambda_15': Variant('lambda 1.5', {'model.relevance_weight': 1.5}),
  'residual_0': Variant('pooling after the graph only', {'model.residual_weight': 0.0}),
  'residual_50': Variant('residual weight 0.5', {'model.residual_weight': 0.5}),
  'hinge': Variant('hardest-negative hinge losses', {'loss.base': 'hinge', 'loss.enhanced': 'hinge'}),
  'hinge_sum': Variant(
    'hinge losses over all negatives', {'loss.base': 'hinge', 'loss.enhanced': 'hinge', 'loss.hardest_negative': False}
  ),
  'raw_inputs': Variant('the interaction sees embeddings that are not normalised', {'model.normalize_inputs': False}),
}


def with_variant(config: ml_collections.ConfigDict, variant: str | None) -> ml_collections.ConfigDict:
  """`config` with the settings of `variant`; an empty one changes nothing.

  Raises:
    UserError: A name is unknown or missing, a setting has no such key or another type, or two of them contradict.
  """
  config, said = config.copy_and_resolve_references(), {}
  for part in _parts(variant or ''):
    for key, value in settings_of(part).items():
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


def _parts(variant: str) -> list[str]:
  parts = variant.split('+') if variant else []
  if '' in parts:
    where = f'part {parts.index("") + 1} of {len(parts)} is empty'
    raise UserError(f'variant {variant!r}: {where}, expected names or settings with one + between them')
  return parts


def settings_of(part: str) -> dict:
  """The settings of one name or one `key=value`."""
  if part in VARIANTS:
    return VARIANTS[part].settings
  if part == FULL:
    raise UserError(
      f'variant {FULL!r} is no setting: it is the mean of the scores of {" and ".join(FULL_MEMBERS)}, trained '
      f'separately; `python -m hrem_jax ablate --variants={",".join((*FULL_MEMBERS, FULL))}` trains and averages them, '
      '`python -m hrem_jax.main --mode=evaluate --workdir=ONE --workdir=OTHER` averages what is trained'
    )
  key, is_setting, value = part.partition('=')
  if not is_setting:
    raise UserError(f'variant {part!r} is unknown; there are {", ".join(VARIANTS)}, and any section.key=value')
  try:
    return {key: ast.literal_eval(value)}
  except (ValueError, SyntaxError):
    return {key: value}  # a word


def describe(variant: str) -> str:
  """For a table: what the names stand for, settings as they are."""
  if variant == FULL:
    return FULL_ABOUT
  return ', '.join(VARIANTS[part].about if part in VARIANTS else part for part in _parts(variant))


def listing() -> str:
  """A line per name: what it stands for, and what it sets."""
  width = max(map(len, VARIANTS))
  lines = [
    f'{name:{width}}  {variant.about}: {" ".join(f"{key}={value}" for key, value in variant.settings.items())}'
    for name, variant in VARIANTS.items()
  ]
  return '\n'.join([*lines, f'{FULL:{width}}  {FULL_ABOUT} {" and ".join(FULL_MEMBERS)}; for `ablate` only'])
