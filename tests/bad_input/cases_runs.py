"""Workdirs, checkpoints, TFDS data sets, commands, and disks that cannot be written."""

import json
import shutil

import numpy as np

from bad_input.breaking import array, both, cut, edited, entry, folder, gone, put, raw
from bad_input.cases_data import AT, EVALUATE, TRAIN
from bad_input.table import Case
from hrem_jax.retrieval.checksums import write_checksums
from hrem_jax.retrieval.run import RUN_FILES

RESUME = TRAIN.replace('W/new', 'W/run')
TFDS = f'{TRAIN.replace("W/data", "W/tfds")} --config.data.source=tfds'
TFDS_AT = 'tfds/region_captions/tiny/1.0.0'
ABLATE = 'ablate --config=W/config.py --data=W/data --seeds=1 --output W/new'
STEP = 'run/checkpoints/12'


def damage(world):
  """Half of the largest file of arrays, as an interrupted copy leaves it; which file that is, is chance."""
  path = max((world / STEP / 'state').rglob('d/*'), key=lambda path: path.stat().st_size)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unsealed(damage):  # a start that was killed right after saving leaves such a checkpoint
  return both(gone(f'{STEP}/checksums.json'), damage)


def empty_checkpoint(world):
  """The run is in its place, so that nothing of its configuration changes."""
  content = json.loads((world / 'run/config.json').read_text())
  content['data']['directory'] = str(world / 'data')
  (world / 'run/config.json').write_text(json.dumps(content, indent=2) + '\n')
  write_checksums(world / 'run', RUN_FILES)
  shutil.rmtree(world / STEP)
  (world / STEP).mkdir()


def other_member(world):
  """A second run whose test split is another one, by its own configuration."""
  shutil.copytree(world / 'run', world / 'second')
  shutil.copytree(world / 'data', world / 'fewer')
  np.save(world / 'fewer/tiny_precomp/test_ims.npy', np.load(world / f'{AT}/test_ims.npy')[:11])
  captions = (world / f'{AT}/test_caps.txt').read_text().splitlines()[:55]
  (world / 'fewer/tiny_precomp/test_caps.txt').write_text('\n'.join(captions) + '\n')
  for name, data in (('run', 'data'), ('second', 'fewer')):
    content = json.loads((world / name / 'config.json').read_text())
    content['data']['directory'] = str(world / data)
    (world / name / 'config.json').write_text(json.dumps(content))
    (world / name / 'checksums.json').unlink()


def started_elsewhere(world):
  content = json.loads((world / 'run/config.json').read_text())
  content['loss']['margin'] = 0.5
  (world / 'run/config.json').write_text(json.dumps(content))
  (world / 'run/checksums.json').unlink()


def shard(world):
  return next((world / TFDS_AT).glob('region_captions-train.*'))


CASES = [
  Case(
    'evaluation of nothing',
    EVALUATE.replace('W/run', 'W/nothing'),
    'nothing/config.json: no such file; expected is a w',
  ),
  Case('evaluation of an empty folder', EVALUATE.replace('W/run', 'W/empty'), 'empty/config.json: no such file'),
  Case('a workdir without checkpoints', EVALUATE, 'run/checkpoints: no checkpoint there', gone('run/checkpoints')),
  Case('a checkpoint cut off', EVALUATE, 'checkpoints/12: damaged: state/.* is not what was written', damage),
  Case(
    'a checkpoint cut off, without checksums',
    EVALUATE,
    'checkpoints/12/state: not a whole checkpoint: .*Error reading',
    unsealed(damage),
  ),
  Case(
    'metadata of a checkpoint cut off, without checksums',
    EVALUATE,
    'checkpoints/12/state: not a whole checkpoint: Unterminated string',
    unsealed(cut(f'{STEP}/state/_METADATA', 5000)),
  ),
  Case(
    'a checkpoint without its state', EVALUATE, 'checkpoints/12: damaged: state/.* is missing', gone(f'{STEP}/state')
  ),
  Case(
    'a checkpoint of an unknown format',
    EVALUATE,
    'checkpoints/12',
    lambda w: [gone(f'{STEP}/checksums.json')(w), raw(f'{STEP}/state/_METADATA', b'{"format": 99}')(w)],
  ),
  Case(
    'checksums that are no JSON',
    EVALUATE,
    'checkpoints/12/checksums.json: not JSON',
    raw(f'{STEP}/checksums.json', b'{'),
  ),
  Case(
    'a score that cannot be read',
    EVALUATE,
    'metrics/metrics: not JSON',
    unsealed(raw(f'{STEP}/metrics/metrics', b'{"rsum": 4')),
  ),
  Case(
    'a score that is no number',
    EVALUATE,
    'metrics/metrics: expected JSON with the rsum of the selection split, a number, found nan',
    unsealed(raw(f'{STEP}/metrics/metrics', b'{"rsum": NaN}')),
  ),
  Case(
    'a score that was changed',
    EVALUATE,
    'checkpoints/12: damaged: metrics/metrics is not what was written',
    entry(f'{STEP}/metrics/metrics', lambda c: c.update(rsum=1.5)),
  ),
  Case(
    'a checkpoint that has lost its score',
    EVALUATE,
    'checkpoints/12: damaged: metrics/metrics is missing',
    gone(f'{STEP}/metrics'),
  ),
  Case(
    'a configuration that was changed',
    EVALUATE,
    'run: damaged: config.json is not what was written .*; if it was changed on purpose, remove run/checksums.json',
    entry('run/config.json', lambda c: c['model'].update(residual_weight=0.5)),
  ),
  Case(
    'a vocabulary with another bit',
    EVALUATE,
    'run: damaged: tokenizer.json is not what was written',
    lambda w: raw('run/tokenizer.json', (w / 'run/tokenizer.json').read_bytes().replace(b'"dog"', b'"dof"'))(w),
  ),
  Case(
    'going on from a damaged checkpoint alone',
    RESUME,
    r'run/checkpoints: no whole checkpoint is there to go on from',
    empty_checkpoint,
    ('run/tensorboard',),
  ),
  Case(
    'going on with another configuration',
    RESUME,
    r'run: was started with another configuration \(loss.margin 0.5 -> 0.2\)',
    started_elsewhere,
  ),
  Case(
    'checkpoints without config.json',
    RESUME,
    r'run/config.json: no such file, but run/checkpoints has 1 checkpoint',
    gone('run/config.json'),
  ),
  Case(
    'a checkpoint of another model',
    EVALUATE,
    'run',
    edited(entry('run/config.json', lambda c: c['model'].update(region_size=17))),
  ),
  Case(
    'a run without the size of its regions',
    EVALUATE,
    'run/config.json: config.model.region_size is 0, expected positive',
    edited(entry('run/config.json', lambda c: c['model'].update(region_size=0))),
  ),
  Case(
    'evaluation of features of another size',
    EVALUATE,
    'test_ims.npy: features of size 12, run was trained on 13',
    array(f'{AT}/test_ims.npy', lambda a: a[..., 1:]),
  ),
  Case(
    'the mean of runs of different test splits',
    'main --mode=evaluate --workdir=W/run --workdir=W/second',
    'run and second were not made for the same test split: 13 and 11 images',
    other_member,
  ),
  Case(
    'the workdir is a file',
    TRAIN.replace('W/new', 'W/file'),
    'file/tokenizer.json: cannot be written: .*file is no',
  ),
  Case(
    'the workdir lies below a file',
    TRAIN.replace('W/new', 'W/file/new'),
    'file/new/tokenizer.json: cannot be written: .*file is no folder',
  ),
  Case(
    'a workdir in an S3 bucket',
    TRAIN.replace('W/new', 's3://bucket/run'),
    's3://bucket/run: an address',
  ),
  Case('a bucket without a folder', TRAIN.replace('W/new', 'gs://bucket'), 'gs://bucket: expected gs://BUCKET/FOLDER'),
  Case(
    'a workdir with a character that tensorstore changes',
    TRAIN.replace('W/new', 'W/new\\run'),
    'checkpoints cannot be kept in a folder with .* in its name',
  ),
  Case(
    'a workdir that looks like an address',
    TRAIN.replace('W/new', 'W/gs:/run'),
    "gs:/run/checkpoints': checkpoints cannot be kept in a folder with 'gs:' in its name",
  ),
  Case('ablate: into a bucket', f'{ABLATE} --variants=fusion --output gs://bucket/new', 'gs://bucket/new: an address'),
  Case('export: into a bucket', 'export W/run --output gs://bucket/new', 'gs://bucket/new: an address'),
  Case('report: into a bucket', 'report W/run --output gs://bucket/page.html', 'gs://bucket/page.html: an address'),
  Case(
    'convert: a workdir whose name cannot be one',
    'convert W/release.pth --output W/a\\b --vocabulary W/vocab.txt',
    'checkpoints cannot be kept in a folder with',
  ),
  Case(
    'a folder in the place of results.json',
    EVALUATE,
    'run/results.json: cannot be written: there is something that is no file',
    lambda w: [gone('run/results.json')(w), folder('run/results.json')(w)],
  ),
  Case(
    'a TFDS data set that is not there',
    TFDS.replace('W/tfds', 'W/empty'),
    'empty/region_captions/tiny/1.0.0: no TFDS data set there',
  ),
  Case(
    'a TFDS data set without its description',
    TFDS,
    '1.0.0: cannot be opened',
    raw(f'{TFDS_AT}/dataset_info.json', b'{'),
  ),
  Case(
    'a TFDS shard is missing',
    TFDS,
    'region_captions-train.*: no such file; was the data set copied',
    lambda w: shard(w).unlink(),
  ),
  Case(
    'a TFDS shard is cut off',
    TFDS,
    'region_captions-train.*: 100 bytes, expected',
    lambda w: shard(w).write_bytes(shard(w).read_bytes()[:100]),
  ),
  Case('TFDS captions are missing', TFDS, 'captions-train.json: no such file', gone(f'{TFDS_AT}/captions-train.json')),
  Case(
    'a TFDS split that is not there',
    f'{TFDS} --config.evaluation.test_split=testall',
    "no split 'testall' in this TFDS data set",
  ),
  Case(
    'convert-data: the data set is there', 'convert-data W/data --output W/tfds', '1.0.0: is there already; remove it'
  ),
  Case(
    'convert-data: below a file',
    'convert-data W/data --output W/file',
    '1.0.0: cannot be written: .*Not a directory',
    begun=('new',),  # a bar
  ),
  Case(
    'convert-data: into a bucket',
    'convert-data W/data --output gs://bucket/data',
    'gs://bucket/data: an address',
  ),
  Case(
    'convert-data: NaN',
    'convert-data W/data --output W/new',
    'train_ims.npy: row 4 .*holds NaN',
    array(f'{AT}/train_ims.npy', put((4, 1, 1), np.nan)),
    ('new',),
  ),
  Case('no command', '', 'the following arguments are required: COMMAND'),
  Case('an unknown command', 'trian W/run', "argument COMMAND: invalid choice: 'trian'"),
  Case('an unknown option', 'export W/run --output W/new --fast', 'unrecognized arguments: --fast'),
  Case(
    'a word for a number of a command',
    'ablate --variants=fusion --output W/new --seeds=many',
    "argument --seeds: invalid int value: 'many'",
  ),
  Case('ablate: no configuration', 'ablate --variants=fusion --output W/new', '--config is missing'),
  Case(
    'ablate: no seed', f'{ABLATE} --variants=fusion --seeds=0', r"at least one seed, found \['fusion'\] and 0 seeds"
  ),
  Case('ablate: an unknown variant', f'{ABLATE} --variants=fusion,fussion', "variant 'fussion' is unknown"),
  Case(
    'ablate: the mean without its members', f'{ABLATE} --variants=full', "'full' is the mean of fusion and standalone"
  ),
  Case(
    'ablate: weights that are not there',
    f'{ABLATE} --variants=fusion --config.model.text=bert --config.model.weights=W/none',
    "config.model.weights='none': no such folder",
  ),
  Case(
    'ablate: weights cut off',
    f'{ABLATE} --variants=fusion --config.model.text=bert --config.model.weights=W/bert',
    'model.safetensors: not a whole',
    cut('bert/model.safetensors', 4000),
  ),
  Case(
    'ablate: results of a run are no JSON',
    f'{ABLATE} --variants=fusion',
    'new/fusion/seed_0/results.json: not JSON',
    raw('new/fusion/seed_0/results.json', b'{"metrics"'),
    ('new',),
  ),
  Case('report of nothing', 'report W/nothing', 'nothing/config.json: no such file'),
  Case(
    'report: the page is a folder',
    'report W/run --data W/data --output W/empty',
    'empty: cannot be written: there is something that is no file',
  ),
  Case(
    'report: below a file',
    'report W/run --data W/data --output W/file/page.html',
    'file/page.html: cannot be written: .*file is no folder',
  ),
  Case('export of nothing', 'export W/nothing --output W/new', 'nothing/config.json: no such file'),
  Case('export: the output is there', 'export W/run --output W/data', 'data: exists already'),
  Case('export: below a file', 'export W/run --output W/file/new', 'file/new: cannot be written: Not a directory'),
  Case(
    'prepare-demo: no picture', 'prepare-demo --output W/new --num-dev 0', 'num_dev: is 0, expected a positive number'
  ),
  Case(
    'prepare-demo: below a file',
    'prepare-demo --output W/file/new --num-train 1 --num-dev 1 --num-test 1',
    'file/new: Not a directory',
  ),
  Case('serve of nothing', 'serve W/nothing --port 0', 'nothing: no index there'),
  Case('serve: no such port', 'serve W/nothing --port 70000', '--port 70000: expected 0 to 65535'),
  Case(
    'serve: an address of another machine',
    'serve W/nothing --host 203.0.113.1 --port 0',
    '--host 203.0.113.1 --port 0: cannot listen there: ',
  ),
]
