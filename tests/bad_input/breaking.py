"""Ways to break a file of the world, each to be written in one line of a table."""

import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np


def array(name: str, change: Callable[[np.ndarray], object]):
  """What `change` returns takes the place of the array; None keeps what it changed."""

  def breaks(world: pathlib.Path) -> None:
    content = np.load(world / name)
    changed = change(content)
    np.save(world / name, content if changed is None else changed)

  return breaks


def put(index, value):
  return lambda content: content.__setitem__(index, value)


def lines(name: str, change: Callable[[list[str]], object]):
  def breaks(world: pathlib.Path) -> None:
    content = (world / name).read_text('utf-8').split('\n')[:-1]
    changed = change(content)
    (world / name).write_text(''.join(f'{line}\n' for line in (content if changed is None else changed)), 'utf-8')

  return breaks


def raw(name: str, content: bytes):
  def breaks(world: pathlib.Path) -> None:
    (world / name).parent.mkdir(parents=True, exist_ok=True)
    (world / name).write_bytes(content)

  return breaks


def cut(name: str, size: int):
  return lambda world: (world / name).write_bytes((world / name).read_bytes()[:size])


def gone(name: str):
  def breaks(world: pathlib.Path) -> None:
    path = world / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

  return breaks


def entry(name: str, change: Callable[[dict], object]):
  """Changes an object in a JSON file."""

  def breaks(world: pathlib.Path) -> None:
    content = json.loads((world / name).read_text('utf-8'))
    change(content)
    (world / name).write_text(json.dumps(content), 'utf-8')

  return breaks


def folder(name: str):
  return lambda world: (world / name).mkdir(parents=True)


def both(*breaks):
  return lambda world: [each(world) for each in breaks]


def edited(*breaks):
  """A run whose files were changed on purpose, as its message says: without their checksums."""
  return both(gone('run/checksums.json'), *breaks)
