"""Search without any training: the towers of a folder, their pictures from `extract`, their texts."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import small_pictures

from hrem_jax import cli
from hrem_jax.errors import UserError
from hrem_jax.ports.towers import open_towers
from hrem_jax.search.encode import encode
from hrem_jax.search.searcher import open_searcher
from hrem_jax.search.tower_encoder import TowerEncoder


@pytest.fixture(scope='module', params=['clip', 'siglip'])
def tower(request, golden):
  return golden / 'towers' / request.param


@pytest.fixture(scope='module')
def world(tower, tmp_path_factory):
  folder = tmp_path_factory.mktemp('towers')
  small_pictures.make_folder(folder / 'pictures', 5, captions=0)
  extract = f'extract --images {folder}/pictures --encoder {tower} --output {folder}/data --dev 0 --test 0'
  cli.run(extract.split())
  cli.run(['encode', '--encoder', str(tower), '--data', str(folder / 'data'), '--index', str(folder / 'index')])
  return folder


def test_scores_are_cosines_of_the_towers(tower, world):
  searcher, towers, text = open_searcher(world / 'index'), open_towers(tower), 'a dog on the grass'
  hits = searcher.by_text(text)
  assert len(hits) == 5
  tokens, _ = towers.text.tokenize([text])
  query = np.asarray(jax.jit(towers.text.module.apply)(towers.text.variables, tokens).embedding)[0]
  picture = small_pictures.random_picture(3)
  pixels = np.asarray(towers.vision.preprocessing(picture))[None]
  embedding = np.asarray(jax.jit(towers.vision.module.apply)(towers.vision.variables, pixels).embedding)[0]
  (score,) = (hit.score for hit in hits if hit.id == 'picture_3')
  assert score == pytest.approx(float(embedding @ query), abs=0.02)  # the file is a JPEG
  found = searcher.by_picture(picture, 1)[0]
  assert found.id == 'picture_3'
  assert found.picture.is_file()


def test_many_texts_are_encoded_as_one_is(tower):
  encoder, texts = TowerEncoder(tower), [f'a dog and {number} cats' for number in range(35)]
  together = encoder.texts(texts)
  assert together.shape == (35, encoder.size)
  np.testing.assert_allclose(together[[0, 34]], [encoder.texts([texts[i]])[0] for i in (0, 34)], atol=1e-5)
  with pytest.raises(UserError, match="a query without words: ' '"):
    encoder.texts(['a dog', ' '])


def test_embeddings_of_others_are_refused(tower, world, tmp_path):
  data = pathlib.Path(shutil.copytree(world / 'data', tmp_path / 'data')) / 'own_precomp'
  encoder = TowerEncoder(tower)
  embeddings = np.load(data / 'gallery_embeddings.npy')
  np.save(data / 'gallery_embeddings.npy', embeddings[:4])
  with pytest.raises(UserError, match=r'gallery_embeddings.npy: 4 rows of float32, expected 5'):
    encode(encoder, data, tmp_path / 'index', progress=False)
  (data / 'gallery_embeddings.npy').unlink()
  with pytest.raises(UserError, match='gallery_embeddings.npy: no such file'):
    encode(encoder, data, tmp_path / 'index', progress=False)
  content = json.loads((data / 'provenance.json').read_text())
  content['encoder']['weights_sha256'] = '0'
  (data / 'provenance.json').write_text(json.dumps(content))
  with pytest.raises(UserError, match=r'own_precomp: not made with .*, but with '):
    encode(encoder, data, tmp_path / 'index', progress=False)
  (data / 'provenance.json').unlink()
  with pytest.raises(UserError, match=r'own_precomp: not made with .*, but nobody knows how'):
    encode(encoder, data, tmp_path / 'index', progress=False)


def test_a_folder_that_has_changed(tower, world, tmp_path):
  index, folder = tmp_path / 'index', pathlib.Path(shutil.copytree(tower, tmp_path / 'tower'))
  encode(TowerEncoder(folder), world / 'data', index, progress=False)
  tokenizer = json.loads((folder / 'tokenizer.json').read_text())
  (folder / 'tokenizer.json').write_text(json.dumps(tokenizer, indent=3))
  with pytest.raises(UserError, match='made by another encoder than .*tower .tokenizer_sha256 was'):
    open_searcher(index)
