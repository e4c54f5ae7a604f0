"""Whatever writes a place is refused, in one line and before it computes, while another process writes there."""

import pathlib

import pytest
import synthetic

from hrem_jax import cli
from hrem_jax.locks import only_writer

GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> pathlib.Path:
  world = tmp_path_factory.mktemp('world')
  synthetic.write_data_set(world / 'data')
  config = synthetic.tiny_config(world / 'data')
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
  synthetic.write_run(config, world / 'run')
  (world / 'vocab.txt').write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *map(str, range(195))]))
  (world / 'config.py').write_text(
    'import pathlib, synthetic\n\n\n'
    f'def get_config():\n  return synthetic.tiny_config(pathlib.Path({str(world / "data")!r}))\n'
  )
  return world


@pytest.mark.filterwarnings('ignore:.*load_module')  # how ml_collections loads a configuration
@pytest.mark.parametrize(
  ('command', 'place', 'beside'),
  [
    ('report W/run', 'run/report.html', True),
    ('export W/run --output W/new', 'new', True),
    (f'convert {GOLDEN}/model_best.pth --vocabulary W/vocab.txt --output W/new', 'new', True),
    ('convert-data W/data --output W/new', 'new/region_captions/tiny/1.0.0', True),
    ('ablate --config=W/config.py --variants=standalone --seeds=1 --output W/new', 'new', False),
    ('prepare-demo --output W/new --num-train 1 --num-dev 1 --num-test 1', 'new/demo_precomp', True),
  ],
)
def test_the_second_is_refused(world, capsys, command, place, beside):
  with only_writer(world / place, beside=beside):
    before = {path: path.stat().st_mtime_ns for path in world.rglob('*')}
    with pytest.raises(SystemExit) as end:
      cli.run([part.replace('W/', f'{world}/') for part in command.split()])
    assert {path: path.stat().st_mtime_ns for path in world.rglob('*') if '__pycache__' not in str(path)} == before
  assert end.value.code == 2
  assert f'hrem_jax: {world / place}: another process writes there' in capsys.readouterr().err
