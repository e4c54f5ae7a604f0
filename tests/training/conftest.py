"""What most tests of trainings begin with."""

import pathlib

import pytest
import synthetic


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> pathlib.Path:
  """The tiny data set, and room for workdirs."""
  directory = tmp_path_factory.mktemp('tiny')
  synthetic.write_data_set(directory)
  return directory
