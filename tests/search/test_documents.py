"""docs/search.md: its four commands and its Python run as they stand there."""

import json
import pathlib
import re

import pytest
from bad_input.table import main

from hrem_jax import cli
from hrem_jax.data.demo.build import sample_splits
from hrem_jax.data.demo.drawing import draw

DOCUMENT = (pathlib.Path(__file__).parents[2] / 'docs' / 'search.md').read_text('utf-8')
# What makes the commands quick, behind them.
SMALLER = {
  'extract': '--encoder patches --pictures-size 64',
  'main': '--config.model.embedding_size=32 --config.model.bigru.word_size=16 '
  '--config.training.num_epochs=2 --config.training.batch_size=16 --config.data.length_buckets=(24,) '
  '--config.hrem.warmup_steps=1000',
}


@pytest.fixture
def scenes(tmp_path, monkeypatch):
  """A folder `photos` with scenes of the demo and captions, which is the current folder's."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').symlink_to(pathlib.Path(__file__).parents[2] / 'configs')
  (tmp_path / 'photos').mkdir()
  captions = {}
  for picture in sample_splits({'test': 30, 'dev': 1, 'train': 1}, 0)['test']:
    draw(picture.scene)[0].save(tmp_path / 'photos' / f'{picture.id}.png')
    captions[picture.id] = [caption.text for caption in picture.captions]
    (tmp_path / 'photos' / f'{picture.id}.txt').write_text('\n'.join(captions[picture.id]) + '\n')
  return captions


def commands(heading: str) -> list[str]:
  """Those of the first block of a section."""
  section = DOCUMENT.split(f'## {heading}\n')[1].split('\n## ')[0]
  block = re.search(r'(?:^    .*\n)+', section, re.MULTILINE).group()
  return [line.strip() for line in block.splitlines()]


def run(command: str) -> None:
  program, *arguments = re.findall(r'"[^"]*"|\S+', command.removeprefix('python -m '))
  name = 'main' if program == 'hrem_jax.main' else arguments[0]
  arguments = [argument.strip('"') for argument in [*arguments, *SMALLER.get(name, '').split()]]
  if name != 'main':
    cli.run(arguments)
    return
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('sys.argv', ['hrem_jax', *arguments])
    with pytest.raises(SystemExit) as end:  # of absl
      main()
  assert not end.value.code


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')  # of ml_collections
def test_four_commands_from_pictures_to_answers(scenes, tmp_path, capsys):
  from_pictures = commands('From a folder of pictures to answers')
  assert [command.split()[2:4][-1].split('=')[0] for command in from_pictures] == [
    'extract',
    '--config',
    'encode',
    'search',
  ]
  for command in from_pictures[:3]:
    run(command)
  capsys.readouterr()
  words = next(iter(scenes.values()))[0]
  run(from_pictures[3].replace('two dogs run on grass', words) + ' --json')
  found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert len(found) == 10
  for hit in found:
    assert hit['captions'] == scenes[hit['id']]
    assert pathlib.Path(hit['picture']).name == f'{hit["id"]}.jpg'
  # As the document goes on: the same in Python.
  (code,) = re.findall(r'```python\n(.*?)```', DOCUMENT, re.DOTALL)
  inside = {}
  exec(code.replace('two dogs run on grass', words), inside)
  assert capsys.readouterr().out.splitlines() == [
    f'{hit.score} {hit.id} {hit.captions} {hit.picture}' for hit in inside['searcher'].by_text(words, 3)
  ]
  assert [hit['id'] for hit in found[:3]] == [hit.id for hit in inside['searcher'].by_text(words, 3)]
  assert len(inside['similar']) == 10
