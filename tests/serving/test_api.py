"""Every route, and what it says to every mistake."""

import json
import re
from urllib.parse import quote

import pytest
import serving_world
import small_pictures
from PIL import Image

from hrem_jax.serving.searches import Searches


def ids_of(response) -> list[str]:
  serving_world.check(response)
  assert response.status_code == 200
  return [each['id'] for each in response.json()['results']]


def test_text_finds_pictures(world, client):
  caption = world.searcher.item('test_0001a').captions[0]
  response = client.get('/api/search', params={'text': caption, 'count': 3})
  assert ids_of(response) == [hit.id for hit in world.searcher.by_text(caption, 3)]
  first = response.json()['results'][0]
  assert first.keys() == {'id', 'score', 'captions', 'picture'}
  assert 0 < first['score'] <= 1
  shown = client.get(f'/{first["picture"]}')
  serving_world.check(shown)
  assert (shown.status_code, shown.headers['content-type']) == (200, 'image/png')
  assert shown.content == world.searcher.item(first['id']).picture.read_bytes()


def test_words_as_they_stand(world, client):
  caption = world.searcher.item('test_0001a').captions[0]
  response = client.get('/api/search', params={'text': caption, 'by': 'words'})
  assert 'test_0001a' in ids_of(response)
  assert all(caption in each['captions'] for each in response.json()['results'])
  assert ids_of(client.get('/api/search', params={'text': f'{caption} xylophone', 'by': 'words'})) == []
  assert ids_of(client.get('/api/search', params={'text': caption, 'by': 'both'}))
  assert client.get('/api/search', params={'text': caption, 'by': 'colour'}).status_code == 422


def test_words_that_nobody_has_learnt(world, client):
  known = world.searcher.item('test_0001a').captions[0]
  for text, unknown in ((known, []), (f'{known} xylophone', ['xylophone'])):
    assert client.get('/api/search', params={'text': text}).json()['unknown'] == unknown


def test_a_picture_finds_itself(world, client):
  content = world.searcher.item('test_0001a').picture.read_bytes()
  for kind in ('image/png', 'IMAGE/PNG; x=1', 'image/jpeg', 'application/octet-stream'):
    response = client.post('/api/search?count=2', content=content, headers={'Content-Type': kind})
    assert ids_of(response)[0] == 'test_0001a'
    assert response.json()['results'][0]['score'] == pytest.approx(1)


def test_a_picture_that_lies_on_its_side_is_turned(world, client):
  with Image.open(world.searcher.item('test_0001a').picture) as picture:
    lying = picture.convert('RGB').transpose(Image.Transpose.ROTATE_90)
  exif = Image.Exif()
  exif[0x0112] = 6
  response = client.post(
    '/api/search',
    content=small_pictures.as_bytes(lying, quality=95, exif=exif),
    headers={'Content-Type': 'image/jpeg'},
  )
  assert ids_of(response)[0] == 'test_0001a'


def test_the_gallery_in_pages(world, client):
  ids = world.searcher.ids(0, 1000)
  seen = []
  for start in range(0, len(ids) + 7, 7):
    page = client.get('/api/pictures', params={'start': start, 'count': 7})
    serving_world.check(page)
    assert (page.json()['start'], page.json()['total']) == (start, len(ids))
    seen += [each['id'] for each in page.json()['pictures']]
  assert seen == ids
  assert [each['id'] for each in client.get('/api/pictures').json()['pictures']] == ids[:60]


@pytest.mark.parametrize('name', ['test_0001a', *serving_world.NAMES])
def test_one_picture_whatever_it_is_called(world, client, name):
  addressed = next(
    each['picture'] for each in client.get('/api/pictures?count=200').json()['pictures'] if each['id'] == name
  )
  picture = client.get(f'/api/{addressed}')
  serving_world.check(picture)
  assert picture.json() == {
    'id': name,
    'captions': list(world.searcher.item(name).captions),
    'picture': addressed,
  }
  assert client.get(f'/{addressed}').headers['content-type'] == 'image/png'
  nearest = ids_of(client.get(f'/api/{addressed}/nearest?count=5'))
  assert nearest == [hit.id for hit in world.searcher.by_id(name, 5)]
  assert name not in nearest


@pytest.mark.parametrize('name', serving_world.PERCENT)
def test_names_that_look_encoded(port, name):
  addressed = quote(name, safe='')
  assert json.loads(serving_world.ask(port, f'/api/pictures/{addressed}')[2])['id'] == name
  assert serving_world.ask(port, f'/pictures/{addressed}')[:2] == (200, 'image/png')


def test_about(world, client):
  about = client.get('/api/about').json()
  assert (about['pictures'], about['model']) == (len(world.searcher), 'scenes')
  assert (about['max_text'], about['max_upload'], about['max_results']) == (1000, 20 * 2**20, 100)


MISTAKES = {
  'no text': ('GET', '/api/search', 422, r'^query text: Field required$'),
  'blank text': ('GET', '/api/search?text=%20%09', 422, r'^query text: is blank'),
  'text without words': ('GET', '/api/search?text=%3F!', 422, r'^index: a query without words$'),
  'long text': ('GET', f'/api/search?text={"x" * 1001}', 422, r'^query text: .*at most 1000'),
  'no picture wanted': ('GET', '/api/search?text=x&count=0', 422, r'^query count: .*greater than or equal to 1'),
  'too many wanted': ('GET', '/api/search?text=x&count=101', 422, r'^query count: .*less than or equal to 100'),
  'a word for a number': ('GET', '/api/pictures?count=many', 422, r'^query count: .*valid integer'),
  'before the start': ('GET', '/api/pictures?start=-1', 422, r'^query start: '),
  'beyond all numbers': ('GET', '/api/pictures?start=99999999999999999999', 422, r'^query start: '),
  'an unknown id': ('GET', '/api/pictures/nobody', 404, r"^no picture 'nobody' in the index$"),
  'nothing near it': ('GET', '/api/pictures/nobody/nearest', 404, r"^no picture 'nobody' in the index$"),
  'no file of it': ('GET', '/pictures/nobody', 404, r"^no picture 'nobody' in the index$"),
  'a long id': ('GET', f'/pictures/{"x" * 1025}', 422, r'^path id: .*at most 1024'),
  'no id': ('GET', '/pictures/', 422, r'^path id: '),
  'nowhere': ('GET', '/nowhere', 404, r'^Not Found$'),
  'the folder of the page': ('GET', '/page/', 404, r'^Not Found$'),
  "FastAPI's pages, which load from elsewhere": ('GET', '/docs', 404, r'^Not Found$'),
  'deleting': ('DELETE', '/api/pictures/test_0001a', 405, r'^Method Not Allowed$'),
  'posting to the gallery': ('POST', '/api/pictures', 405, r'^Method Not Allowed$'),
  'nothing posted': ('POST', '/api/search', 415, r"^Content-Type is ''"),
}


@pytest.mark.parametrize('what', MISTAKES)
def test_mistakes_are_told_in_json(client, what):
  method, address, status, message = MISTAKES[what]
  response = client.request(method, address)
  serving_world.check(response)
  assert response.status_code == status
  assert re.search(message, response.json()['error']), response.json()


def test_what_breaks_is_told_without_a_traceback(world, client, monkeypatch):
  def break_down(text, count, *, by):
    raise RuntimeError('deep inside /home/somebody')

  monkeypatch.setattr(world.searcher, 'by_text', break_down)
  response = client.get('/api/search?text=x')
  assert (response.status_code, response.json()) == (500, {'error': 'Internal Server Error'})
  assert response.headers['x-content-type-options'] == 'nosniff'


def test_too_many_at_once_are_sent_away(tmp_path):
  world = serving_world.make(tmp_path, 1, searches=Searches(at_once=1, waiting=0))
  client = serving_world.client_of(world)
  inner = {}

  def by_text(text, count, *, by):
    inner['response'] = serving_world.client_of(world).get('/api/search?text=y')
    return []

  world.searcher.by_text = by_text
  assert client.get('/api/search?text=x').status_code == 200
  assert inner['response'].status_code == 503
  assert 'busy' in inner['response'].json()['error']
  assert inner['response'].headers['retry-after'] == '2'
  world.searcher.by_text = lambda text, count, *, by: []
  assert client.get('/api/search?text=x').status_code == 200


def test_the_schema_names_every_route(client):
  paths = client.get('/openapi.json').json()['paths']
  assert set(paths) == {
    '/api/search',
    '/api/pictures',
    '/api/pictures/{id}',
    '/api/pictures/{id}/nearest',
    '/api/about',
    '/pictures/{id}',
  }
