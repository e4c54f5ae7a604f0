"""The page: files of ours only, nothing inline, nothing from elsewhere, and all of them in the package."""

import pathlib
import re
import shutil
import subprocess
from configparser import ConfigParser
from html.parser import HTMLParser

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / 'hrem_jax' / 'serving' / 'page'
FILES = sorted(FOLDER.iterdir())


class Elements(HTMLParser):
  def __init__(self, text: str):
    super().__init__()
    self.found = []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.found.append((tag, dict(attributes)))


@pytest.fixture(scope='module')
def elements():
  return Elements((FOLDER / 'index.html').read_text('utf-8')).found


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_file_is_served_as_what_it_is(client, path):
  response = client.get('/' if path.name == 'index.html' else f'/page/{path.name}')
  kinds = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml'}
  assert response.status_code == 200
  assert response.headers['content-type'].split(';')[0] == kinds[path.suffix]
  assert response.content == path.read_bytes()


def test_the_page_belongs_to_the_package():
  settings = ConfigParser()
  settings.read(FOLDER.parents[2] / 'setup.cfg')
  assert settings['options.package_data']['hrem_jax.serving'] == 'page/*'


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(elements):
  for tag, attributes in elements:
    assert tag != 'style'
    assert not [name for name in attributes if name == 'style' or name.startswith('on')]
    assert tag != 'script' or attributes['src'].startswith('page/')
  for path in FILES:
    addresses = set(re.findall(r'(?:https?:)?//[\w.-]+\.\w+[^\s\'"]*', path.read_text('utf-8')))
    assert addresses <= {'http://www.w3.org/2000/svg'}, path.name
    assert not re.search(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b', path.read_text('utf-8'))


def test_people_who_do_not_see_it_can_use_it(elements):
  assert ('html', {'lang': 'en'}) in elements
  labels = {attributes['for'] for tag, attributes in elements if tag == 'label'}
  for tag, attributes in elements:
    if tag == 'input':
      assert attributes['id'] in labels or attributes.get('aria-label')
    if tag == 'svg':
      assert attributes['aria-hidden'] == 'true'
    if tag == 'button' and not attributes.get('aria-label'):
      assert attributes['type'] in ('submit', 'button')
  assert {'status', 'search'} <= {attributes.get('role') for _, attributes in elements}
  assert 'prefers-reduced-motion' in (FOLDER / 'style.css').read_text()


def test_text_and_background_differ_enough():
  """WCAG 2 asks for 4.5 to 1 for text."""

  def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

  light, dark = re.findall(r':root \{(.*?)\}', (FOLDER / 'style.css').read_text(), re.DOTALL)
  for block in (light, dark):
    colours = dict(re.findall(r'--([\w-]+): (#\w{6})', block))
    for text, background in (
      ('ink', 'page'), ('ink', 'card'), ('quiet', 'page'), ('quiet', 'card'), ('accent', 'page'), ('accent', 'card'),
      ('on-accent', 'accent'), ('ink', 'note-wash'), ('quiet', 'hair'),
    ):  # fmt: skip
      bright, dim = sorted((luminance(colours[text]), luminance(colours[background])), reverse=True)
      assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, background, colours)


@pytest.mark.skipif(not shutil.which('node'), reason='no Node.js, which knows JavaScript')
@pytest.mark.parametrize('path', [path for path in FILES if path.suffix == '.js'], ids=lambda path: path.name)
def test_the_scripts_are_javascript(path, tmp_path):
  module = shutil.copy(path, tmp_path / f'{path.stem}.mjs')
  subprocess.run(['node', '--check', module], check=True, capture_output=True)
