"""What may happen to the file of an index behind the back of who has it open, and what is said of it."""

import os

from small_index import make_content, make_index


def cut(path):
  os.truncate(path, path.stat().st_size // 3)


def replaced(path):
  make_index(path.with_name('other'), make_content(['other']), id='another')
  os.replace(path.with_name('other'), path)


DAMAGE = {
  'cut': (cut, 'the index is damaged'),
  'emptied': (lambda path: os.truncate(path, 0), 'this file is no index'),
  'deleted': (lambda path: path.unlink(), 'no index there'),
  'replaced': (replaced, 'another index has taken its place; open it again'),
  'another file': (lambda path: path.write_text('something else' * 9), 'file is not a database|no index'),
  'a folder': (lambda path: [path.unlink(), path.mkdir()], 'a folder, and no index'),
}
