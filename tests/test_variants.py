"""Named variants change what they say, on every configuration, and mistakes are named."""

import pytest

from hrem_jax import configuration
from hrem_jax.errors import UserError
from hrem_jax.methods.hrem_variants import VARIANTS
from hrem_jax.methods.registry import METHODS, default_config, validate
from hrem_jax.methods.variants import describe, listing, with_variant

SETTINGS = [
  pytest.param(method, name, variant.settings, id=f'{method}-{name}')
  for method, entry in METHODS.items()
  for name, variant in entry.variants.items()
  if not variant.members
]
TRAINED = [name for name, variant in VARIANTS.items() if not variant.members]


@pytest.mark.parametrize(('method', 'name', 'settings'), SETTINGS)
def test_every_variant_is_valid_and_sets_what_it_says(method, name, settings):
  config = default_config(method)
  changed = with_variant(config, name)
  validate(changed)
  for key, value in settings.items():
    assert configuration.value_at(changed, key) == value
  defaults = configuration.leaves(config)
  departures = {key: value for key, value in configuration.leaves(changed).items() if value != defaults[key]}
  assert departures == {key: value for key, value in settings.items() if value != defaults[key]}


def test_only_the_names_of_the_defaults_change_nothing():
  same = {
    name for name in TRAINED if not configuration.differences(default_config(), with_variant(default_config(), name))
  }
  assert same == {'fusion', 'without_neighbours'}


def test_variants_combine_and_any_setting_is_one():
  config = with_variant(default_config(), 'standalone+hrem.association.top_k=3+evaluation.ties=optimistic')
  assert (config.hrem.interaction, config.hrem.association.top_k) == ('standalone', 3)
  assert config.evaluation.ties == 'optimistic'
  assert describe('standalone+hrem.association.top_k=3', VARIANTS) == 'Standalone, hrem.association.top_k=3'


def test_names_and_settings_that_agree_combine():
  config = with_variant(default_config(), 'hinge+hinge_sum+loss.margin=0.3+loss.margin=.30')
  assert (config.loss.base, config.loss.hardest_negative, config.loss.margin) == ('hinge', False, 0.3)


def test_what_is_listed_is_what_a_variant_sets():
  lines, listed = iter(listing().splitlines()), []
  for line in lines:
    if not line.startswith(' '):
      config = default_config(line.split()[0])
      continue
    listed.append((config.method, line.split()[0]))
    if 'for `ablate` only' not in line:
      settings = line.rsplit(': ', 1)[1]
      assert with_variant(config, settings.replace(' ', '+')) == with_variant(config, listed[-1][1])
  assert listed == [(method, name) for method, entry in METHODS.items() for name in entry.variants]


def test_the_given_configuration_stays():
  config = default_config()
  with_variant(config, 'standalone')
  assert config.hrem.interaction == 'fusion'
  assert with_variant(config, '').to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ('variant', 'message'),
  [
    ('fussion', "variant 'fussion' is unknown; there are fusion, standalone"),
    ('model.tokp=5', "variant 'model.tokp=5': the configuration has no key model.tokp"),
    ('modell.top_k=5', 'the configuration has no key modell.top_k'),
    (
      'fusion+top_k_5+standalone',
      "contradicts itself: hrem.interaction is 'fusion' by fusion, 'standalone' by standalone",
    ),
    ('loss.margin=0.3+loss.margin=0.2', 'loss.margin is 0.3 by loss.margin=0.3, 0.2 by loss.margin=0.2'),
    ('fusion+', r"variant 'fusion\+': part 2 of 2 is empty"),
    ('+fusion', 'part 1 of 2 is empty'),
    ('fusion++top_k_5', 'part 2 of 3 is empty'),
    ('+', 'part 1 of 2 is empty'),
    (
      'full',
      "variant 'full' is no setting: .*ablate --variants=fusion,standalone,full` .*--workdir=ONE --workdir=OTHER",
    ),
    ('full+top_k_5', "variant 'full' is no setting"),
    ('training.batch_size=many', "variant 'training.batch_size=many': training.batch_size: .*int"),
  ],
)
def test_mistakes(variant, message):
  with pytest.raises(UserError, match=message):
    with_variant(default_config(), variant)
