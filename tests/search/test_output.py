"""What a query may be, and what standard output can take."""

import io
import json
import pathlib

import pytest

from hrem_jax import cli
from hrem_jax.errors import UserError, check_text, take_any_character
from hrem_jax.search.results import as_json, as_text, is_utf8
from hrem_jax.search.searcher import Hit

HIT = Hit(id='Käse_猫', score=0.5, captions=['a 😀 “cat”'], picture=pathlib.Path('/p/\udcff.jpg'))


def test_a_query_that_is_no_text_is_refused_before_the_index_is_opened(tmp_path, capsys):
  with pytest.raises(SystemExit) as end:
    cli.run(['search', str(tmp_path / 'nowhere'), '--text', 'a dog \udcff'])
  assert end.value.code == 2
  assert r"--text: 'a dog \udcff' is no text: '\udcff' at position 6" in capsys.readouterr().err
  with pytest.raises(UserError, match='is no text'):
    check_text('\ud800', 'query')
  check_text('😀 ü', 'query')


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'cp1252', 'utf-8'])
def test_any_encoding_takes_what_is_found(monkeypatch, encoding):
  raw = io.BytesIO()
  monkeypatch.setattr('sys.stdout', io.TextIOWrapper(raw, encoding=encoding))
  take_any_character()
  print(as_text([HIT]), end='')
  text = as_json([HIT], ascii_only=not is_utf8(io.TextIOWrapper(io.BytesIO(), encoding=encoding)))
  print(text, end='', flush=True)
  *_, line = raw.getvalue().decode(encoding).splitlines()
  found = json.loads(line)
  assert (found['id'], found['captions'], found['picture']) == (HIT.id, HIT.captions, str(HIT.picture))
