"""Words and regions: cosines against slow loops, pieces joined, padding without effect, and what the page says."""

import re

import numpy as np
import oracle
import pytest
import synthetic
from PIL import Image

from hrem_jax.data.tokenizer import build_vocabulary, wordpiece
from hrem_jax.ops.word_regions import join_pieces, word_region_cosine
from hrem_jax.report.answers import answer_of, choose_pairs, joined_words
from hrem_jax.report.examples import Candidate, Example, Examples
from hrem_jax.report.page import gather, render


def fragments(count: int, seed: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=(count, 11)).astype(np.float32)


def test_cosines_are_those_of_the_graph():
  words, regions = fragments(5, 0), fragments(7, 1)
  oracle.assert_close(word_region_cosine(words, regions), oracle.cosine(words, regions), atol=1e-6)


def test_a_word_is_the_mean_of_its_pieces():
  values = np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0], [6.0, 0.0], [0.0, 0.0]])
  joined = join_pieces(values, np.array([0, 1, 1, 1, 2]))
  np.testing.assert_allclose(joined, [[1, 2], [3, 2], [0, 0]])


def test_padding_has_no_effect():
  words, regions, word_of = fragments(5, 0), fragments(7, 1), np.array([0, 1, 1, 2])
  word_mask, region_mask = np.arange(5) < 4, np.arange(7) != 3
  expected = answer_of(words[:4], np.ones(4, bool), regions[region_mask], np.ones(6, bool), word_of)
  words[4], regions[3] = 1e6, np.nan
  found = answer_of(words, word_mask, regions, region_mask, word_of)
  assert found.shape == (3, 6)
  np.testing.assert_array_equal(found, expected)


def test_pieces_are_joined_to_words():
  names = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'gira', '##ff', '##e', '-', 'tall']
  tokenizer = wordpiece({name: number for number, name in enumerate(names)})
  words, word_of = joined_words('A giraffe-tall zebra', tokenizer, 9)
  assert words == ('⟨start⟩', 'a', 'giraffe', '-', 'tall', '[UNK]', '⟨end⟩')
  assert list(word_of) == [0, 1, 2, 2, 2, 3, 4, 5, 6]
  cut, word_of = joined_words('A giraffe-tall zebra', tokenizer, 5)
  assert cut == ('⟨start⟩', 'a', 'giraff', '⟨end⟩')
  assert list(word_of) == [0, 1, 2, 2, 3]


def test_equal_words_side_by_side_stay_two():
  words, word_of = joined_words('dog dog', build_vocabulary(['a dog']), 4)
  assert words == ('⟨start⟩', 'dog', 'dog', '⟨end⟩')
  assert list(word_of) == [0, 1, 2, 3]


def test_pairs_are_chosen_by_rule():
  def example(query: int, order: list[int]) -> Example:
    own = query // 5
    listed = tuple(Candidate(row, place, 0.5, row == own) for place, row in enumerate(order, 1))
    return Example(query, listed, tuple(entry for entry in listed if entry.is_right), len(order))

  hits = tuple(example(5 * row, [row, 9]) for row in range(3))
  examples = Examples(hits, (example(20, [7, 4]),), 3, 1)
  pairs = choose_pairs(examples, np.arange(50) // 5)
  assert [(pair.text, pair.image, pair.is_right) for pair in pairs] == [
    (0, 0, True),
    (5, 1, True),
    (20, 4, True),
    (20, 7, False),
  ]
  assert 'rank 2' in pairs[2].verdict


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run; its pictures and boxes are there."""
  folder = tmp_path_factory.mktemp('answers')
  synthetic.write_data_set(folder / 'data')
  data = folder / 'data' / 'tiny_precomp'
  (data / 'pictures').mkdir()
  for image in range(13):
    Image.new('RGB', (300, 200), (image * 19, 90, 140)).save(data / 'pictures' / f'{image}.png')
  edges = np.linspace(0, 1, 8, dtype=np.float32)
  box = np.stack([edges[:-1], edges[:-1] / 2, edges[1:], edges[1:]], axis=1)
  np.save(data / 'test_boxes.npy', np.repeat(box[None], 13, axis=0))
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run')
  return folder, gather(folder / 'run')


def section(page: str) -> str:
  return re.search(r'<h2>Which regions answer which words</h2>(.*?)</section>', page, re.S)[1]


def test_a_word_lights_up_its_regions(trained):
  found = section(render(trained[1]))
  figures = re.findall(r'<figure class="answer-picture".*?</figure>', found, re.S)
  assert len(figures) == len(trained[1].answers) >= 3
  for figure, answer in zip(figures, trained[1].answers, strict=True):
    assert '--picture:url(data:image/webp;base64,' in figure
    assert '--aspect:1.497' in figure  # 256 by 171
    buttons = re.findall(r'<button.*?</button>', figure, re.S)
    assert len(buttons) == len(answer.words) == len(re.findall(r'<li>', figure))
    for button, cosine in zip(buttons, answer.cosine, strict=True):
      assert f'best region {cosine.argmax() + 1}, cosine {cosine.max():.2f}' in button
      low, high = cosine.min(), cosine.max()
      opacities = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', button)]
      np.testing.assert_allclose(opacities, 0.75 * ((np.sort(cosine) - low) / (high - low)) ** 2, atol=1e-3)
      left = 100 * cosine.argmax() / 7
      assert f'class="best" d="M{left:.1f} {left / 2:.1f}H' in button
    cells = [float(value) for value in re.findall(r'<td[^>]*title="([^"]+)"', figure)]
    np.testing.assert_allclose(cells, answer.cosine.ravel(), atol=6e-5)


def test_wrong_boxes_are_said_and_tables_stand_for_them(trained):
  folder, findings = trained
  path = folder / 'data' / 'tiny_precomp' / 'test_boxes.npy'
  whole = path.read_bytes()
  try:
    np.save(path, 224 * np.load(path))
    pixels = section(render(findings))
    path.unlink()
    without = section(render(findings))
  finally:
    path.write_bytes(whole)
  assert 'as fractions 0..1' in pixels
  assert 'class="note"' not in without
  for page in (pixels, without):
    assert '<button' not in page
    assert len(re.findall('class="answer-table"', page)) == len(findings.answers)
