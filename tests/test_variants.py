"""Named variants change what they say, on every configuration, and mistakes are named."""

import pytest

from hrem_jax import configuration
from hrem_jax.configuration import default_config
from hrem_jax.errors import UserError
from hrem_jax.variants import FULL, VARIANTS, describe, listing, with_variant


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_is_valid_and_sets_what_it_says(name):
  config = default_config()
  changed = with_variant(config, name)
  configuration.validate(changed)
  for key, value in VARIANTS[name].settings.items():
    assert configuration.value_at(changed, key) == value
  defaults = configuration.leaves(config)
  departures = {key: value for key, value in configuration.leaves(changed).items() if value != defaults[key]}
  assert departures == {key: value for key, value in VARIANTS[name].settings.items() if value != defaults[key]}


def test_only_the_names_of_the_defaults_change_nothing():
  same = {
    name for name in VARIANTS if not configuration.differences(default_config(), with_variant(default_config(), name))
  }
  assert same == {'fusion', 'without_neighbours'}


def test_variants_combine_and_any_setting_is_one():
  config = with_variant(default_config(), 'standalone+model.association.top_k=3+evaluation.ties=optimistic')
  assert (config.model.interaction, config.model.association.top_k) == ('standalone', 3)
  assert config.evaluation.ties == 'optimistic'
  assert describe('standalone+model.association.top_k=3') == 'Standalone, model.association.top_k=3'


def test_names_and_settings_that_agree_combine():
  config = with_variant(default_config(), 'hinge+hinge_sum+loss.margin=0.3+loss.margin=.30')
  assert (config.loss.base, config.loss.hardest_negative, config.loss.margin) == ('hinge', False, 0.3)


def test_what_is_listed_is_what_a_variant_sets():
  *lines, last = listing().splitlines()
  assert [line.split()[0] for line in lines] == list(VARIANTS)
  for line in lines:
    name, settings = line.split()[0], line.rsplit(': ', 1)[1]
    assert with_variant(default_config(), settings.replace(' ', '+')) == with_variant(default_config(), name)
  assert last.split()[0] == FULL


def test_the_given_configuration_stays():
  config = default_config()
  with_variant(config, 'standalone')
  assert config.model.interaction == 'fusion'
  assert with_variant(config, '').to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ('variant', 'message'),
  [
    ('fussion', "variant 'fussion' is unknown; there are fusion, standalone"),
    ('model.tokp=5', "variant 'model.tokp=5': the configuration has no key model.tokp"),
    ('modell.top_k=5', 'the configuration has no key modell.top_k'),
    (
      'fusion+top_k_5+standalone',
      "contradicts itself: model.interaction is 'fusion' by fusion, 'standalone' by standalone",
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
