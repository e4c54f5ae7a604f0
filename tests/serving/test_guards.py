"""Requests that other web sites made are refused; every answer tells browsers what it may be used for."""

import pytest
import serving_world
from starlette.testclient import TestClient

from hrem_jax.serving import server
from hrem_jax.serving.application import without_folders
from hrem_jax.serving.guards import HEADERS, Guards


@pytest.mark.parametrize('address', ['/', '/page/main.js', '/api/about', '/nowhere', '/pictures/test_0001a'])
def test_every_answer_has_the_headers(client, address):
  found = client.get(address).headers
  assert {name: found[name] for name in HEADERS} == HEADERS
  assert not {'access-control-allow-origin', 'server', 'x-powered-by', 'set-cookie'} & set(found)


def application_for(host: str, *allowed: str):
  async def answer(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'ours'})

  return Guards(answer, server.names_of(host, allowed), is_any_address=server.is_any_address(host))


HOSTS = [
  ('127.0.0.1', 'localhost', True),
  ('127.0.0.1', 'LOCALHOST:8000', True),
  ('127.0.0.1', '127.0.0.1:9', True),
  ('127.0.0.1', '[::1]:8000', True),
  ('127.0.0.1', 'evil.example', False),
  ('127.0.0.1', 'localhost.evil.example', False),
  ('127.0.0.1', 'localhost:80@evil.example', False),
  ('127.0.0.1', 'evil.example:8000', False),
  ('127.0.0.1', '192.168.0.7', False),
  ('127.0.0.1', '', False),
  ('127.0.0.1', 'localhost:', False),
  ('127.0.0.1', 'localhost ', False),
  ('192.168.0.7', '192.168.0.7:8000', True),
  ('192.168.0.7', '192.168.0.8:8000', False),
  ('0.0.0.0', '192.168.0.8:8000', True),
  ('::', '[fe80::1]:8000', True),
  ('0.0.0.0', 'evil.example', False),
  ('0.0.0.0', '[evil.example]', False),
]


@pytest.mark.parametrize(('host', 'header', 'is_ours'), HOSTS)
def test_only_its_own_names(host, header, is_ours):
  response = TestClient(application_for(host)).get('/', headers={'Host': header})
  assert (response.status_code, response.text == 'ours') == ((200, True) if is_ours else (400, False))
  assert is_ours or 'Host header' in response.json()['error']


def test_names_that_are_allowed():
  client = TestClient(application_for('127.0.0.1', 'Pictures.example'))
  assert client.get('/', headers={'Host': 'pictures.example'}).text == 'ours'
  assert client.get('/', headers={'Host': 'www.pictures.example'}).status_code == 400


@pytest.mark.parametrize('site', ['cross-site', 'same-site'])
def test_other_sites_may_link_to_the_page_but_not_use_the_api(client, site):
  headers = {'Sec-Fetch-Site': site}
  assert client.get('/?text=x', headers=headers).status_code == 200
  for address in ('/api/search?text=x', '/api/about', '/pictures/test_0001a'):
    response = client.get(address, headers=headers)
    serving_world.check(response)
    assert response.status_code == 403
  assert client.get('/api/about', headers={'Sec-Fetch-Site': 'same-origin'}).status_code == 200
  assert client.get('/api/about', headers={'Sec-Fetch-Site': 'none'}).status_code == 200


def test_a_form_of_another_site_is_no_upload(client):
  for kind in ('multipart/form-data; boundary=x', 'application/x-www-form-urlencoded', 'text/plain'):
    response = client.post('/api/search', content=b'x', headers={'Content-Type': kind})
    serving_world.check(response)
    assert response.status_code == 415


@pytest.mark.parametrize(
  ('message', 'shown'),
  [
    ('/home/me/My Photos/of 2020/x.npy: cut off', 'x.npy: cut off'),
    ("'/home/me/My Photos/x.npy' and '/data/y z/q.npy' differ", "'x.npy' and 'q.npy' differ"),
    ('found (/srv/a b/c.json), expected text and/or pictures', 'found (c.json), expected text or pictures'),
    ('run/config.json: no such file', 'config.json: no such file'),
    ('a query without words', 'a query without words'),
  ],
)
def test_folders_are_nobodys_business(message, shown):
  assert without_folders(message) == shown
