"""The house's order: rooms import lower levels or their own; files stay short."""

import ast
import pathlib

import pytest

from hrem_jax.methods.registry import METHODS

ROOT = pathlib.Path(__file__).parent.parent / 'hrem_jax'
LEVELS = [
  {'ops', 'errors'},
  {'command_line', 'distributed', 'files', 'paths', 'settings', 'sharding', 'tower_rules'},
  {'allowed'},
  {'configuration'},
  {'data', 'models'},
  {'ports'},
  {'methods'},
  {'extraction', 'retrieval'},
  {'search', 'training'},
  {'report', 'serving'},
  {'commands', 'main'},
  {'cli'},
  {'__main__'},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FILES = sorted(ROOT.rglob('*.py'))


def room_of(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).with_suffix('').parts[0]


def imported_rooms(path: pathlib.Path) -> set[str]:
  """Rooms of hrem_jax that a file imports, anywhere in it."""
  rooms = set()
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'hrem_jax':
      parts = node.module.split('.')
      rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    elif isinstance(node, ast.Import):
      rooms |= {alias.name.split('.')[1] for alias in node.names if alias.name.startswith('hrem_jax.')}
  return rooms


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_lower_levels_or_their_own(path):
  room = room_of(path)
  if room == '__init__':
    assert imported_rooms(path) == {'retrieval'}  # the user's door, opened when called
    return
  for imported in imported_rooms(path) - {room}:
    assert LEVEL_OF[imported] < LEVEL_OF[room], f'{room} imports {imported}'


def test_every_room_has_a_level():
  assert {room_of(path) for path in FILES} - {'__init__'} == set(LEVEL_OF)


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_read_well(path):
  assert len(path.read_text('utf-8').splitlines()) <= 260
  assert path.name != 'utils.py'


MAY_NAME_METHODS = {'methods', 'ports', 'commands'}


def names_methods(path: pathlib.Path) -> list[str]:
  """Imports of a method's file, strings that are its name, and `config.NAME` in a file."""
  methods, found = set(METHODS), []
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('hrem_jax.methods'):
      named = {node.module.removeprefix('hrem_jax.methods').strip('.').split('_')[0]}
      found += (named | {alias.name for alias in node.names if node.module == 'hrem_jax.methods'}) & methods
    elif isinstance(node, ast.Constant) and node.value in methods:
      found.append(node.value)
    elif isinstance(node, ast.Attribute) and node.attr in methods and 'config' in ast.unparse(node.value):
      found.append(ast.unparse(node))
  return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_methods_know_their_names(path):
  """A fork on a method's name is a piece of that method in the wrong place."""
  if room_of(path) not in MAY_NAME_METHODS:
    assert not names_methods(path)
