"""`python -m hrem_jax extract`: its options reach what they are for, and mistakes end in one line and status 2."""

import json

import numpy as np
import pytest
import small_pictures
from small_encoder import SIZE, small_encoder

from hrem_jax import cli
from hrem_jax.extraction import picture_encoders


@pytest.fixture
def opened(monkeypatch):
  """Names of the encoders that were asked for; each is the small one."""
  names = []
  monkeypatch.setattr(picture_encoders, 'open_encoder', lambda name: names.append(name) or small_encoder())
  return names


def test_every_option_reaches_its_place(opened, tmp_path, capsys):
  small_pictures.make_folder(tmp_path / 'photos', 20, captions=1)
  rows = [f'picture_{seed}.jpg,a caption\n' for seed in range(20)]
  (tmp_path / 'table.csv').write_text('filepath,title\n' + ''.join(rows))
  paths = ['--images', f'{tmp_path}/table.csv', '--root', f'{tmp_path}/photos', '--output', f'{tmp_path}/data']
  values = ['--encoder=some/folder', '--name=mine', '--regions=4', '--dev=0.2', '--test=0.3', '--seed=7']
  cli.run(['extract', *paths, *values, '--pictures-size=10'])
  assert opened == ['some/folder']
  folder = tmp_path / 'data' / 'mine_precomp'
  provenance = json.loads((folder / 'provenance.json').read_text())
  assert (provenance['splits']['dev'], provenance['splits']['test'], provenance['splits']['seed']) == (0.2, 0.3, 7)
  num_test = provenance['counts']['test']['pictures']
  assert np.load(folder / 'test_ims.npy').shape == (num_test, 4, SIZE)
  assert 3 <= num_test <= 12
  assert provenance['pictures_size'] == 10
  shown = capsys.readouterr().out.splitlines()
  assert shown[0] == str(folder)
  assert [line.split()[0] for line in shown[1:5]] == ['split', 'train', 'dev', 'test']


def test_the_default_encoder_needs_no_hub(opened, tmp_path):
  small_pictures.make_folder(tmp_path / 'photos', 3, captions=0)
  cli.run(['extract', '--images', f'{tmp_path}/photos', '--output', f'{tmp_path}/data'])
  assert opened == ['efficientnet-lite2']
  assert (tmp_path / 'data' / 'own_precomp' / 'gallery_ims.npy').is_file()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--images', 'nowhere'], 'nowhere: no such file or folder'),
    (['--images', '.', '--dev', '2'], '--dev 2.0: expected a fraction from 0 to less than 1'),
    (['--images', '.', '--pictures-size', '-1'], '--pictures-size -1: expected pixels, or 0 for no small pictures'),
  ],
)
def test_mistakes_are_told_before_an_encoder_is_opened(opened, tmp_path, capsys, options, message):
  with pytest.raises(SystemExit) as status:
    cli.run(['extract', '--output', str(tmp_path), *options])
  assert status.value.code == 2
  assert capsys.readouterr().err.strip() == f'hrem_jax: {message}'
  assert opened == []
  assert list(tmp_path.iterdir()) == []
