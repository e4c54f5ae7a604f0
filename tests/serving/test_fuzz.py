"""Anything may be asked: the answer is never a failure of the server, and never a file from outside the gallery."""

from collections import Counter
from urllib.parse import urlencode

import hypothesis
import pytest
import serving_world
import small_pictures
from hypothesis import strategies

SETTINGS = hypothesis.settings(
  max_examples=300, deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
WHOLE = [
  small_pictures.as_bytes(small_pictures.random_picture(6, (20, 15)), kind)
  for kind in ('JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'PPM')
]
PARTS = [
  '..', '.', '', '%2e%2e', '%2f', '%5c', '%00', '\0', '\\', '~', 'pictures', 'api', 'search', 'nearest', 'page',
  'about', 'etc', 'passwd', 'secret.txt', 'outside.png', 'index.html', 'test_0001a', 'trap link', 'a%2Fb',
]  # fmt: skip
anything = strategies.text(max_size=40)
pieces = strategies.one_of(
  strategies.sampled_from(PARTS),
  anything,
)
rooms = strategies.sampled_from(['/', '/api/', '/pictures/', '/api/pictures/', '/page/', '/api/search'])
paths = strategies.builds(lambda room, parts: room + '/'.join(parts), rooms, strategies.lists(pieces, max_size=5))
values = strategies.one_of(
  anything,
  strategies.integers().map(str),
  strategies.floats().map(str),
  strategies.sampled_from(['', '1', '0', '-1', '1e9', 'NaN', '10' * 200, 'x' * 1001, '\0', '\ufffd']),
)
queries = strategies.lists(
  strategies.tuples(strategies.sampled_from(['text', 'count', 'start', 'id', '']) | anything, values), max_size=4
)
methods = strategies.sampled_from(['GET', 'GET', 'GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE'])


@pytest.fixture(scope='module')
def pictures(world):
  return {path.read_bytes() for path in (world.gallery / 'pictures').iterdir()}


def check(response, pictures) -> None:
  serving_world.check(response)
  if response.headers['content-type'].startswith('image/'):
    assert response.content in pictures or response.content.startswith(b'<svg')


def test_any_address(world, pictures):
  seen = Counter()

  @hypothesis.given(methods, paths, queries)
  @SETTINGS
  def ask(method, path, query):
    response = serving_world.send(world.application, method, path, urlencode(query))
    check(response, pictures)
    seen[response.status_code] += 1

  ask()
  assert {200, 404, 405, 422} <= set(seen), seen


def test_any_query_of_a_route(world, pictures):
  seen = Counter()
  known = strategies.sampled_from(['test_0001a', *serving_world.NAMES]) | anything

  @hypothesis.given(
    strategies.sampled_from(
      ['api/search', 'api/pictures', 'api/pictures/{}', 'api/pictures/{}/nearest', 'pictures/{}']
    ),
    known,
    queries,
  )
  @SETTINGS
  def ask(route, name, query):
    response = serving_world.send(world.application, 'GET', f'/{route.format(name)}', urlencode(query))
    check(response, pictures)
    seen[response.status_code] += 1

  ask()
  assert {200, 404, 422} <= set(seen), seen


kinds = strategies.sampled_from(
  ['image/png', 'image/jpeg', 'application/octet-stream', 'text/plain', '']
) | strategies.text(strategies.characters(max_codepoint=255), max_size=40)
changes = strategies.lists(
  strategies.tuples(strategies.floats(0, 1, exclude_max=True), strategies.integers(0, 255)), max_size=6
)


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::PIL.Image.DecompressionBombWarning')
def test_any_upload(world, pictures):
  seen = Counter()

  def damaged(content, changes, kept):
    content = bytearray(content)
    for place, value in changes:
      content[int(place * len(content))] = value
    return bytes(content[: int(kept * len(content))])

  bodies = strategies.one_of(
    strategies.builds(damaged, strategies.sampled_from(WHOLE), changes, strategies.floats(0.3, 1)),
    strategies.sampled_from(WHOLE),
    strategies.binary(max_size=200),
  )

  @hypothesis.given(bodies, kinds, queries)
  @SETTINGS
  def send(body, kind, query):
    response = serving_world.send(world.application, 'POST', '/api/search', urlencode(query), body, kind)
    check(response, pictures)
    seen[response.status_code] += 1

  send()
  assert {200, 415, 422} <= set(seen), seen


@pytest.mark.slow
def test_the_api_keeps_what_its_schema_promises(world):
  """Schemathesis makes requests of the schema, right and wrong ones, and compares the answers with it."""
  schemathesis = pytest.importorskip('schemathesis')
  checks = pytest.importorskip('schemathesis.specs.openapi.checks')
  beyond_the_schema = [checks.positive_data_acceptance]  # a sentence of signs only, bytes that are no picture
  schema = schemathesis.openapi.from_asgi('/openapi.json', world.application, headers={'Host': 'localhost'})
  seen = Counter()
  for operation in (found.ok() for found in schema.get_all_operations()):

    @hypothesis.given(operation.as_strategy())
    @hypothesis.settings(SETTINGS, suppress_health_check=list(hypothesis.HealthCheck))
    def ask(case):
      response = case.call(headers={'Host': 'localhost'})
      case.validate_response(response, excluded_checks=beyond_the_schema)
      seen[response.status_code] += 1

    ask()
  assert sum(seen.values()) > 1000, seen
