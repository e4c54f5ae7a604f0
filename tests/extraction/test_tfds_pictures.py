"""Pictures from a data set as TFDS's `coco_captions` is: the features of its scheme, written without TensorFlow."""

import io
import json
import pathlib

import numpy as np
import pytest
import small_pictures
import tensorflow_datasets as tfds

from hrem_jax.errors import UserError
from hrem_jax.extraction.extract import Options, extract
from hrem_jax.extraction.picture_encoders import open_encoder
from hrem_jax.extraction.sources import read_source
from hrem_jax.extraction.splits import SplitRule

SPLITS = {'train': range(6), 'val': range(6, 9), 'test': range(9, 12), 'restval': range(12, 14)}
WITHOUT_CAPTIONS = 4  # a picture of the training split
SCHEME = {
  'image': tfds.features.Image(encoding_format='jpeg'),
  'image/filename': tfds.features.Text(),
  'image/id': np.int64,
  'objects': tfds.features.Sequence({'bbox': tfds.features.BBoxFeature(), 'label': np.int64}),
  'captions': tfds.features.Sequence({'text': np.str_, 'id': np.int64}),
}


def picture(number: int) -> bytes:
  return small_pictures.as_bytes(small_pictures.random_picture(number), quality=95)


def captions(number: int) -> list[str]:
  return [] if number == WITHOUT_CAPTIONS else [f'café  number {number} .', f'another of {number}']


def example(number: int) -> dict:
  return {
    'image': io.BytesIO(picture(number)),
    'image/filename': f'COCO_{number:03}.jpg',
    'image/id': number,
    'objects': [{'bbox': tfds.features.BBox(0.0, 0.0, 1.0, 1.0), 'label': 3}],
    'captions': [{'text': text, 'id': number} for text in captions(number)],
  }


with tfds.core.registered.skip_registration():

  class CocoLike(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.1.0')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='2014'),)
    scheme, example = SCHEME, staticmethod(example)

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.scheme))

    def _split_generators(self, dl_manager):
      return {name: self._generate_examples(numbers) for name, numbers in SPLITS.items()}

    def _generate_examples(self, numbers):
      for number in numbers:
        yield number, self.example(number)


def like(scheme: dict, its_example) -> type[CocoLike]:
  """A data set of other features."""
  with tfds.core.registered.skip_registration():
    scheme = {'image': SCHEME['image'], **scheme}
    make = staticmethod(lambda number: {'image': io.BytesIO(picture(number)), **its_example(number)})
    return type('Other', (CocoLike,), {'scheme': scheme, 'example': make})


WITHOUT_NAMES = like({'captions': tfds.features.Sequence(tfds.features.Text())}, lambda n: {'captions': captions(n)})
ONE_CAPTION = like({'caption': tfds.features.Text()}, lambda n: {'caption': 'a'})
NUMBERS = like({'captions': tfds.features.Sequence(np.int64)}, lambda n: {'captions': [1, 2]})


def write(builder: type[CocoLike], folder: pathlib.Path) -> pathlib.Path:
  built = builder(data_dir=folder, file_format='array_record')
  built.download_and_prepare(download_dir=folder / 'downloads')
  return pathlib.Path(built.data_path)


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> pathlib.Path:
  return write(CocoLike, tmp_path_factory.mktemp('tfds'))


def test_names_captions_and_splits(coco):
  source = read_source(coco)
  assert source.kind == 'tfds'
  found = {record.name: (record.captions, record.split, record.size()) for record in source.records}
  assert len(found) == len(source.records) == 14
  names = {'train': 'train', 'val': 'dev', 'test': 'test', 'restval': 'train'}
  assert found == {
    f'COCO_{number:03}.jpg': (
      tuple(text.replace('  ', ' ') for text in captions(number)),
      names[split] if captions(number) else None,
      len(picture(number)),
    )
    for split, numbers in SPLITS.items()
    for number in numbers
  }


def test_the_features_are_those_of_the_same_files_in_a_table(coco, tmp_path):
  source, encoder = read_source(coco), open_encoder('patches')
  of_tfds = extract(source, encoder, tmp_path / 'tfds', options=Options(rule=SplitRule()), progress=False)
  lines = []
  for record in source.records:
    (tmp_path / record.name).write_bytes(picture(int(record.name[5:8])))
    lines.append({'image': record.name, 'captions': record.captions, 'split': record.split})
  (tmp_path / 'table.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  of_table = extract(read_source(tmp_path / 'table.jsonl'), encoder, tmp_path / 'table', progress=False)
  files = sorted(path.relative_to(of_table.folder) for path in of_table.folder.rglob('*') if path.is_file())
  assert files == sorted(path.relative_to(of_tfds.folder) for path in of_tfds.folder.rglob('*') if path.is_file())
  counts = {'train': 7, 'dev': 3, 'test': 3, 'gallery': 1}
  assert {name: its['pictures'] for name, its in of_tfds.provenance['counts'].items()} == counts
  for file in files:
    if file.name != 'provenance.json':  # it names the source
      assert (of_table.folder / file).read_bytes() == (of_tfds.folder / file).read_bytes(), file


def test_the_digest_knows_the_captions_and_the_sizes(coco, tmp_path):
  digest = read_source(coco).digest()
  assert digest == read_source(coco).digest()
  assert digest != read_source(write(WITHOUT_NAMES, tmp_path)).digest()


def test_texts_alone_and_no_names(tmp_path):
  records = read_source(write(WITHOUT_NAMES, tmp_path)).records
  assert {record.name for record in records} == {f'{name}/{row}' for name in SPLITS for row in range(len(SPLITS[name]))}
  assert sum(len(record.captions) for record in records) == 26


@pytest.mark.parametrize('builder', [ONE_CAPTION, NUMBERS])
def test_other_features(builder, tmp_path):
  with pytest.raises(UserError, match=r"features.json: expected are the features 'image' \(encoded\) and 'captions'"):
    read_source(write(builder, tmp_path))


def test_another_format(coco, tmp_path):
  info = json.loads((coco / 'dataset_info.json').read_text())
  (tmp_path / 'features.json').write_bytes((coco / 'features.json').read_bytes())
  (tmp_path / 'dataset_info.json').write_text(json.dumps(info | {'fileFormat': 'tfrecord'}))
  with pytest.raises(UserError, match=r'written as tfrecord, expected array_record: .*`tfds build coco_like --file_f'):
    read_source(tmp_path)
  (tmp_path / 'dataset_info.json').write_text('{"name": ')
  with pytest.raises(UserError, match=f'^{tmp_path}: cannot be opened as a TFDS data set: '):
    read_source(tmp_path)


def test_a_damaged_file_is_named(coco, tmp_path):
  for path in coco.iterdir():
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    if '-val.' in path.name:  # much of it is padding
      used = np.flatnonzero(content)
      content[used[len(used) // 3 : len(used) // 2]] ^= 255
    (tmp_path / path.name).write_bytes(content.tobytes())
  with pytest.raises(UserError, match=r'split val: example \d cannot be read: '):
    read_source(tmp_path)
