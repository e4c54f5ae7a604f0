"""The batch on the page: the graph against slow loops, the interaction's own output, recalls by hand."""

import dataclasses
import re

import numpy as np
import oracle
import pytest
import synthetic

from hrem_jax.data.batch import ImageInputs, TextInputs
from hrem_jax.report.answers import pad_captions
from hrem_jax.report.batch_view import batch_view, choose_batch, recalls
from hrem_jax.report.page import gather, render
from hrem_jax.retrieval.run import load_best


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('batch')
  synthetic.write_data_set(folder / 'data')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  return folder / 'run', gather(folder / 'run')


def test_a_batch_has_distinct_pictures_and_their_first_captions():
  owner = np.array([6, 6, 0, 2, 2])
  images, texts = choose_batch(owner)
  assert (list(images), list(texts)) == ([0, 2, 6], [2, 3, 0])
  images, texts = choose_batch(np.arange(500) // 5)
  assert len(set(images)) == 12
  np.testing.assert_array_equal(texts, 5 * images)


def test_the_matrices_are_those_of_slow_loops(trained):
  workdir, findings = trained
  run, variables, *_ = load_best(workdir)
  view, split = findings.batch, findings.split
  regions, region_mask = split.features.rows(view.images)
  tokens, word_mask = pad_captions(run, [split.captions[text] for text in view.texts])
  images = run.method.apply(variables, ImageInputs(regions, region_mask), method='encode_images')
  texts = run.method.apply(variables, TextInputs(tokens, word_mask), method='encode_texts')
  # By the loops of METHOD section 2.
  (p_i2t, _), (p_t2i, _) = oracle.fragment_relations(
    np.asarray(images.fragments), region_mask, np.asarray(texts.fragments), word_mask, top_k=5
  )
  v, u = np.asarray(images.embedding), np.asarray(texts.embedding)
  expected = oracle.connection_matrix(v, u, p_i2t, p_t2i)
  assert view.connection.shape == (24, 24)
  np.testing.assert_array_equal(view.connection, expected)
  distance = np.linalg.norm(v[:, None] - v[None], axis=2)
  oracle.assert_close(view.blocks(view.relevance)['i2i'], np.exp(-distance), atol=1e-4)
  oracle.assert_close(view.before, oracle.cosine(v, u), atol=1e-5)
  again = batch_view(run, variables, split)
  np.testing.assert_array_equal(again.after, view.after)  # no dropout
  assert np.abs(view.after - view.before).max() > 1e-3


def test_blocks_are_row_first(trained):
  view = trained[1].batch
  matrix = np.arange(24 * 24).reshape(24, 24)
  assert {name: block[0, 0] for name, block in view.blocks(matrix).items()} == {
    'i2i': 0,
    'i2t': 12,
    't2i': 12 * 24,
    't2t': 12 * 24 + 12,
  }


def test_recalls_worked_by_hand():
  # Picture 0 finds its caption; picture 1 prefers caption 0; picture 2 finds its own. Caption 0 prefers picture 1.
  similarity = np.array([[0.8, 0.1, 0.2], [0.9, 0.7, 0.0], [0.1, 0.0, 0.5]])
  assert recalls(similarity) == pytest.approx((200 / 3, 200 / 3))
  assert recalls(np.array([[0.8, 0.9, 0.95], [0.1, 0.7, 0.0], [0.1, 0.0, 0.5]])) == pytest.approx((200 / 3, 100 / 3))


def test_every_number_is_on_the_page(trained):
  page = render(trained[1])
  view = trained[1].batch
  found = {}
  for title, body in re.findall(r'<caption>([^<]+)</caption>.*?<tbody>(.*?)</tbody>', page, re.S):
    found[title.split(':')[0]] = [float(value) for value in re.findall(r'title="(-?[\d.]+)">[^<]*</td>', body)]
  for name, block in view.blocks(view.relevance).items():
    np.testing.assert_allclose(found[f'S {name}'], block.ravel(), atol=6e-5)
  for name, block in view.blocks(view.connection).items():
    np.testing.assert_array_equal(found[f'A {name}'], block.ravel())
  np.testing.assert_allclose(found['Similarity before'], view.before.ravel(), atol=6e-5)
  np.testing.assert_allclose(found['Similarity after'], view.after.ravel(), atol=6e-5)
  np.testing.assert_allclose(found['After minus before'], (view.after - view.before).ravel(), atol=6e-5)
  for name, similarity in (('before', view.before), ('after', view.after)):
    cells = ''.join(f'<td>{value:.1f}</td>' for value in recalls(similarity))
    assert f'<th scope="row">{name}</th>{cells}' in page


def test_a_run_without_a_graph_says_so(trained):
  page = render(dataclasses.replace(trained[1], batch=None))
  assert 'no relations among the instances of a batch' in page
  assert 'Relevance matrix' not in page
