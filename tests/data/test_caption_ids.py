"""COCO's numbers of captions: read, or found by what the captions of an image say together."""

import json
import re

import numpy as np
import pytest

from hrem_jax.cli import run
from hrem_jax.data.caption_ids import Annotations, find_caption_ids, read_caption_ids, write_caption_ids
from hrem_jax.data.precomputed import load_split
from hrem_jax.errors import UserError

# Number, image and caption; one caption twice at an image, one at two images.
ANNOTATIONS = [
  (31, 7, 'A dog, running.'),
  (5, 7, "The man's dog"),
  (12, 7, 'A dog, running.'),
  (44, 9, 'A Cat!'),
  (2, 9, 'a dog running'),
  (90, 9, 'Two cats'),
  (61, 4, 'Nobody'),
]
CAPTIONS = ['a cat', 'two cats', 'a dog running', 'a dog running .', "the man 's dog", 'A DOG running']


@pytest.fixture
def folder(tmp_path):
  """Two images of three captions, in another order and as a tokenizer leaves them."""
  np.save(tmp_path / 'testall_ims.npy', np.ones((2, 3, 5), np.float32))
  (tmp_path / 'testall_caps.txt').write_text('\n'.join(CAPTIONS) + '\n')
  return tmp_path


def write_annotations(path, rows, *, karpathy=False):
  if karpathy:
    images = {image: [] for _, image, _ in rows}
    for number, image, caption in rows:
      images[image].append({'sentid': number, 'raw': caption})
    content = {'images': [{'cocoid': image, 'sentences': sentences} for image, sentences in images.items()]}
  else:
    content = {'annotations': [dict(id=number, image_id=image, caption=caption) for number, image, caption in rows]}
  path.write_text(json.dumps(content))
  return path


@pytest.mark.parametrize('karpathy', [False, True])
def test_captions_are_found_by_their_image(folder, karpathy, capsys):
  path = write_annotations(folder / 'annotations.json', ANNOTATIONS, karpathy=karpathy)
  run(['caption-ids', str(folder), '--annotations', str(path)])
  written = folder / 'testall_caption_ids.txt'
  assert capsys.readouterr().out == f'{written}\n'
  assert read_caption_ids(written).tolist() == [44, 90, 2, 31, 5, 12]  # of equal ones the first is taken first


def test_an_image_that_is_not_there_or_there_twice(folder):
  split = load_split(folder, 'testall')
  missing = Annotations(write_annotations(folder / 'a.json', ANNOTATIONS[:2] + ANNOTATIONS[3:]))
  with pytest.raises(
    UserError, match=r"a.json: no image with all 3 captions of image '1' of testall, the first .* 'a dog"
  ):
    find_caption_ids(split, missing)
  twice = [*ANNOTATIONS, *((number + 100, 8, caption) for number, _, caption in ANNOTATIONS[3:6])]
  with pytest.raises(UserError, match="2 images with all 3 captions of image '0' of testall"):
    find_caption_ids(split, Annotations(write_annotations(folder / 'b.json', twice)))
  assert not (folder / 'testall_caption_ids.txt').exists()


@pytest.mark.parametrize('content', ['{', '[]', '{"images": [{"cocoid": 3}]}', '{"annotations": [{"id": 1}]}'])
def test_annotations_of_another_kind(folder, content):
  path = folder / 'annotations.json'
  path.write_text(content)
  with pytest.raises(UserError, match=re.escape(f'{path}: ') + '.*expected is captions_val2014.json of COCO'):
    write_caption_ids(folder, 'testall', path)
  with pytest.raises(UserError, match='nowhere.json: FileNotFoundError'):
    write_caption_ids(folder, 'testall', folder / 'nowhere.json')


@pytest.mark.parametrize('line', ['12a', '-3', '1.5', '٣', '9' * 19])
def test_a_line_that_is_no_number(tmp_path, line):
  path = tmp_path / 'testall_caption_ids.txt'
  path.write_text(f'31\n{line}\n')
  with pytest.raises(UserError, match=re.escape(f"{path}: line 2 is '{line}', expected the number of a COCO caption")):
    read_caption_ids(path)
