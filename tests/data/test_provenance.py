"""Where features are from: kept with a run, and nothing else taken for the same."""

import json

import pytest
import synthetic

from hrem_jax.data.provenance import (
  check_same_data,
  check_same_features,
  differences,
  read_provenance,
  write_provenance,
)
from hrem_jax.errors import UserError
from hrem_jax.training.setup import prepare

ONE = {'encoder': {'name': 'x', 'sha256': 'aa'}, 'features': {'size': 5}, 'source': {'pictures': 7}}


def test_what_is_written_is_read(tmp_path):
  write_provenance(tmp_path, ONE | {'name': 'Ünï'})
  assert read_provenance(tmp_path) == ONE | {'name': 'Ünï'}
  assert read_provenance(tmp_path / 'elsewhere') is None


@pytest.mark.parametrize(
  ('content', 'message'), [(b'{', 'not JSON: '), (b'\xff', 'not JSON: '), (b'[]', 'list, expected an object$')]
)
def test_other_files_are_refused(tmp_path, content, message):
  (tmp_path / 'provenance.json').write_bytes(content)
  with pytest.raises(UserError, match=rf'provenance\.json: {message}'):
    read_provenance(tmp_path)


def test_every_value_that_differs_is_named():
  other = {'encoder': {'name': 'x', 'sha256': 'bb', 'new': None}, 'features': {}, 'source': {'pictures': 8}}
  assert differences(ONE, ONE) == []
  assert differences(ONE, other) == [
    'encoder.new is null, was not there',
    'encoder.sha256 is "bb", was "aa"',
    'features.size is not there, was 5',
    'source.pictures is 8, was 7',
  ]
  assert differences(ONE, other, ['source']) == ['source.pictures is 8, was 7']


def test_other_pictures_have_the_same_features_and_another_encoder_has_not(tmp_path):
  write_provenance(tmp_path, ONE | {'source': {'pictures': 99}})
  check_same_features(ONE, tmp_path, whose='the run')
  check_same_features(None, tmp_path, whose='the run')
  check_same_features(ONE, tmp_path / 'no provenance', whose='the run')
  check_same_features({'format': 1}, tmp_path, whose='the run')  # the demo's, which has no encoder
  write_provenance(tmp_path, ONE | {'encoder': {'name': 'y', 'sha256': 'aa'}})
  with pytest.raises(
    UserError, match=r'provenance\.json: other features than the run \(encoder.name is "y", was "x"\)'
  ):
    check_same_features(ONE, tmp_path, whose='the run')


def test_a_run_keeps_the_provenance_of_its_data_and_refuses_others(tmp_path):
  synthetic.write_data_set(tmp_path / 'data')
  config = synthetic.tiny_config(tmp_path / 'data')
  folder, workdir = next((tmp_path / 'data').glob('*_precomp')), tmp_path / 'run'
  prepare(config, workdir)
  assert not (workdir / 'provenance.json').exists()
  write_provenance(folder, ONE)
  prepare(config, workdir)  # a run of before there was such a file
  assert json.loads((workdir / 'provenance.json').read_text()) == ONE
  prepare(config, workdir)
  for changed, message in (
    (ONE | {'source': {'pictures': 8}}, 'source.pictures is 8, was 7'),
    ({}, 'encoder.name is not there, was "x"'),
  ):
    write_provenance(folder, changed)
    with pytest.raises(UserError, match=rf'run: was started on other data than .* \({message}'):
      prepare(config, workdir)
  (folder / 'provenance.json').unlink()
  with pytest.raises(UserError, match='was started on other data'):
    check_same_data(workdir, folder)
  assert json.loads((workdir / 'provenance.json').read_text()) == ONE
