"""The page: what it must hold, what it must never hold, and what may be missing."""

import dataclasses
import html
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import synthetic
from PIL import Image

from hrem_jax import cli
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError
from hrem_jax.ops.ranking import retrieval_metrics
from hrem_jax.report.page import Findings, gather, render, write_report
from hrem_jax.report.pictures import Pictures
from hrem_jax.retrieval.scores import ChanceScores

NASTY = '<script>alert("x")</script> a dog & a \'cat\''
ATTRIBUTION = 'Drawn by <b>somebody</b>, https://example.org, CC BY 4.0'


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> pathlib.Path:
  """A folder with `data` and the run `run <1>`, whose parameters are random; every image but 0 has a picture."""
  folder = tmp_path_factory.mktemp('report')
  synthetic.write_data_set(folder / 'data')
  data = folder / 'data' / 'tiny_precomp'
  captions = (data / 'test_caps.txt').read_text('utf-8').splitlines()
  (data / 'test_caps.txt').write_text('\n'.join([NASTY] * len(captions)) + '\n', encoding='utf-8')
  (data / 'ATTRIBUTION.txt').write_text(ATTRIBUTION, encoding='utf-8')
  (data / 'pictures').mkdir()
  for image in range(1, 13):
    Image.new('RGB', (500, 300), (image * 19, 90, 140)).save(data / 'pictures' / f'{image}.png')
  synthetic.write_run(synthetic.tiny_config(folder / 'data'), folder / 'run <1>')
  return folder


@pytest.fixture(scope='module')
def page(trained) -> str:
  return write_report(trained / 'run <1>').read_text('utf-8')


@pytest.fixture(scope='module')
def findings(trained) -> Findings:
  return gather(trained / 'run <1>')


def cells(page: str, kind: str) -> list[list[str]]:
  """The figures of the test table's rows of one kind."""
  rows = re.findall(rf'<tr class="{kind}">.*?</tr>', page)
  return [re.findall(r'<td[^>]*>([^<]+)</td>', row) for row in rows]


def test_nothing_comes_from_outside(page):
  assert not re.search(r'<script|<link|<iframe|<object|@import|url\((?!data:)|javascript:|\shref=|\son\w+=', page)
  sources = re.findall(r'src="([^"]{5})', page)
  assert sources
  assert set(sources) == {'data:'}
  assert len(page) < 3_000_000


def test_what_others_wrote_is_escaped(page):
  assert '<script' not in page
  assert html.escape(NASTY) in page
  assert '<h1>run &lt;1&gt;</h1>' in page
  assert html.escape(ATTRIBUTION) in page


def test_the_page_is_well_formed(page):
  """Every element is closed, and every SVG attribute is a number."""
  opened = []
  for closing, tag in re.findall(r'<(/?)([a-z][a-z0-9]*)', page):
    if tag in ('meta', 'img', 'path'):
      continue
    if closing:
      assert opened.pop() == tag
    else:
      opened.append(tag)
  assert not opened
  assert not re.search(r'\b(nan|inf)\b', page)


def test_the_table_holds_the_results_and_chance(trained, page):
  metrics = json.loads((trained / 'run <1>' / 'results.json').read_text('utf-8'))['metrics']
  owner = load_split(trained / 'data' / 'tiny_precomp', 'test').owner
  chance = retrieval_metrics(ChanceScores((13, len(owner))).ranks(owner))
  names = ('r1', 'r5', 'r10', 'median_rank', 'mean_rank')

  def expected(values, *directions):
    return [[f'{values[f"{direction}/{name}"]:.1f}' for name in names] for direction in directions]

  assert cells(page, 'model') == expected(metrics, 'i2t', 't2i')
  assert cells(page, 'model rsum') == [[f'{metrics["rsum"]:.1f}']]
  assert cells(page, 'chance') == [*expected(chance, 'i2t', 't2i'), [f'{chance["rsum"]:.1f}']]


def test_it_says_which_checkpoint_and_why(page):
  assert 'checkpoint of step 12, selected by its rSum on dev (' in page
  assert 'class="note"' not in page


def test_right_ones_are_marked_and_others_are_not(page):
  right, wrong = (re.findall(rf'<li class="{kind}[ "].*?</li>', page) for kind in ('right', 'wrong'))
  assert right
  assert wrong
  assert all('✓' in entry for entry in right)
  assert not any('✓' in entry for entry in wrong)
  assert len(re.findall('<article', page)) == 12


def test_a_miss_says_its_rank(page):
  for article in re.findall(r'<article.*?</article>', page):
    rank = re.search(r'✗ right (picture|caption) at rank (\d+) of (\d+)', article)
    positions = [int(position) for position in re.findall(r'<li class="right.*?class="position">(\d+)', article)]
    assert (int(rank[2]) if rank else 1) == positions[0]
    assert ('beyond' in article) == (positions[0] > 5)
  assert '✗ right picture at rank' in page


def test_a_picture_that_is_missing_or_broken_is_a_card(trained, findings):
  pictures = trained / 'data' / 'tiny_precomp' / 'pictures'
  hidden = pictures.rename(pictures.with_name('hidden'))
  try:
    page = render(findings)
    assert '<img' not in page
    assert '<b>12</b>' in page
    assert 'The data folder has no <code>pictures</code>' in page
    pictures.mkdir()
    for image in range(13):
      (pictures / f'{image}.jpg').write_bytes(b'no picture')
    page = render(findings)
    assert '<img' not in page
    assert '<b>12</b>' in page
    assert 'Pictures that cannot be read' in page
    assert re.search(r'<li>\d+.jpg: not one of JPEG, .* or damaged</li>', page)
  finally:
    shutil.rmtree(pictures, ignore_errors=True)
    hidden.rename(pictures)


@pytest.mark.parametrize('image_id', ['../secret', '/etc/secret', 'a\0b', 'x' * 300])
def test_an_id_never_leads_out_of_the_folder_of_pictures(tmp_path, image_id):
  (tmp_path / 'pictures').mkdir()
  Image.new('RGB', (5, 5)).save(tmp_path / 'secret.png')
  assert Pictures(tmp_path).address(image_id) is None


def test_pictures_go_through_the_door_of_extraction(tmp_path):
  (tmp_path / 'pictures').mkdir()
  Image.new('RGB', (90, 60), 'red').save(tmp_path / 'pictures' / 'eps.png', 'EPS')  # Ghostscript would be started
  Image.new('L', (9000, 5)).save(tmp_path / 'pictures' / 'line.png')
  Image.new('1', (20_000, 20_000)).save(tmp_path / 'pictures' / 'bomb.png')
  Image.new('RGB', (40, 30), 'red').save(tmp_path / 'pictures' / 'red.png')
  pictures = Pictures(tmp_path)
  assert (
    pictures.address('eps') is pictures.address('line') is pictures.address('bomb') is pictures.placed('gone') is None
  )
  reasons = {path.name: reason for path, reason in pictures.problems.items()}
  assert reasons['eps.png'].startswith('not one of JPEG')
  assert reasons['line.png'] == '9000 x 5 pixels, one side more than 100 times the other'
  assert 'decompression bomb' in reasons['bomb.png']
  address, ratio = pictures.placed('red')
  assert (address[:23], ratio) == ('data:image/webp;base64,', 4 / 3)


def test_without_metrics_there_are_no_curves(findings):
  page = render(dataclasses.replace(findings, reports=[]))
  assert 'No curves' in page
  assert 'selected by its rSum on dev.' in page


def test_a_checkpoint_that_nobody_selected_is_called_so(findings):
  page = render(dataclasses.replace(findings, is_selected=False))
  assert 'The newest checkpoint (step 12): none was evaluated on dev' in page


def test_a_run_selected_on_the_test_split_is_told_so(findings):
  config = findings.run.config.copy_and_resolve_references()
  config.evaluation.select_on = 'test'
  page = render(dataclasses.replace(findings, run=dataclasses.replace(findings.run, config=config)))
  assert 'selected on test, the split that is reported' in page


def test_results_of_something_else_are_pointed_out(findings):
  recorded = {'metrics': findings.metrics | {'rsum': findings.metrics['rsum'] + 40}}
  assert 'results.json holds other figures' in render(dataclasses.replace(findings, recorded=recorded))
  assert 'results.json' not in render(dataclasses.replace(findings, recorded=None))


def test_the_curves_show_every_term_and_the_chosen_checkpoint(page):
  assert re.findall(r'<figcaption>([\w ]+?) <', page) == [
    'Loss',
    'rSum on dev',
    'Recalls on dev',
    'Relation loss',
    'Learning rate',
    'Gradient norm',
    'Examples per second',
  ]
  legend = re.search(r'<ul class="legend">(.*?)</ul>', page)[1]
  assert re.findall(r'(\w+) <b>([^<]+)</b>', legend) == [('total', '5.751'), ('base', '0.75'), ('cross', '5')]
  assert len(re.findall('class="ring"', page)) == 1
  assert 'step 12 · ' in page


def test_skipped_updates_are_shown(findings):
  report = {'kind': 'train', 'step': 13, 'loss': 1.0, 'skipped': 3}
  page = render(dataclasses.replace(findings, reports=[*findings.reports, report]))
  legend = re.search(r'<figcaption>Skipped updates .*?</ul>', page)[0]
  assert 'last <b>3</b>' in legend


def test_losses_that_are_not_finite_are_counted_not_drawn(findings):
  report = {'kind': 'train', 'step': 13, 'loss': float('nan'), 'gradient_norm': float('inf')}
  page = render(dataclasses.replace(findings, reports=[*findings.reports, report]))
  assert page.count('1 not finite') == 2
  assert not re.search(r'd="[^"]*(nan|inf)', page)


def test_two_protocols_have_a_table_each(findings):
  metrics, chance = (
    {f'{prefix}{key}': value for prefix in ('coco_1k/', 'coco_5k/') for key, value in values.items()}
    for values in (findings.metrics, findings.chance)
  )
  page = render(dataclasses.replace(findings, metrics=metrics, chance=chance))
  assert re.findall(r'class="protocol"[^>]*>([^<]+)<', page) == ['COCO 1K, mean of five folds', 'COCO 5K']
  assert len(cells(page, 'model rsum')) == 2


def test_data_elsewhere(page, trained, tmp_path, capsys):
  shutil.copytree(trained / 'data' / 'tiny_precomp', tmp_path / 'tiny_precomp')
  captions = tmp_path / 'tiny_precomp' / 'test_caps.txt'
  captions.write_text(captions.read_text('utf-8').replace('a dog &', 'a horse &'), 'utf-8')
  output = tmp_path / 'page.html'
  cli.run(['report', str(trained / 'run <1>'), f'--output={output}', f'--data={tmp_path}'])
  assert capsys.readouterr().out == f'{output}\n'
  elsewhere = output.read_text('utf-8')
  assert ('a horse &amp;' in elsewhere, 'a dog &amp;' in elsewhere) == (True, False)
  assert '<img' in elsewhere  # the pictures are those of the folder, too
  assert 'a dog &amp;' in page


def test_features_of_another_size_are_named(trained, tmp_path):
  synthetic.write_data_set(tmp_path)
  path = tmp_path / 'tiny_precomp' / 'test_ims.npy'
  np.save(path, np.load(path)[..., :-2])
  with pytest.raises(UserError, match=r'test_ims.npy: features of size 11, .*run <1> was trained on 13'):
    gather(trained / 'run <1>', data=tmp_path)


def test_a_folder_that_is_no_run(tmp_path):
  with pytest.raises(UserError, match=r'config\.json: no such file'):
    write_report(tmp_path)


def test_the_same_run_gives_the_same_page_anywhere(page, trained, tmp_path):
  output = tmp_path / 'elsewhere' / 'page.html'
  assert write_report(trained / 'run <1>', output) == output
  assert output.read_text('utf-8') == page
