"""Named variants change what they say, on every configuration, and mistakes are named."""

import pytest

from hrem_jax import configuration
from hrem_jax.configuration import default_config
from hrem_jax.errors import UserError
from hrem_jax.variants import VARIANTS, describe, with_variant


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
    ('training.batch_size=many', "variant 'training.batch_size=many': training.batch_size: .*int"),
  ],
)
def test_mistakes(variant, message):
  with pytest.raises(UserError, match=message):
    with_variant(default_config(), variant)
