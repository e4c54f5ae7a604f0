"""Configuration files, settings and the command line."""

from bad_input.breaking import edited, entry, gone, lines, raw
from bad_input.cases_data import EVALUATE, TRAIN
from bad_input.table import Case


def file(text: str):
  return raw('config.py', text.encode())


def with_line(line: str):
  return lines('config.py', lambda content: [*content[:7], f'  {line}', *content[7:]])


CASES = [
  Case('no --workdir', 'main --config=W/config.py', 'flag --workdir=None: Flag --workdir must have a value'),
  Case('no --config', 'main --workdir=W/new', '--config is missing'),
  Case('an unknown flag', f'{TRAIN} --wrkdir=W/x', "Unknown command line flag 'wrkdir'"),
  Case('an argument that is no flag', f'{TRAIN} more', "unexpected argument 'more'"),
  Case('an unknown mode', f'{TRAIN} --mode=tune', 'flag --mode=tune: value should be one of <train|evaluate>'),
  Case('two workdirs to train', f'{TRAIN} --workdir=W/other', '--mode=train takes one --workdir, found 2'),
  Case('--output with one workdir', f'{EVALUATE} --output=W/o.json', '--output is for several workdirs'),
  Case(
    'a configuration that is not there',
    TRAIN.replace('config.py', 'nothing.py: no such file; expected is a configuration'),
    'nothing.py: no such file; expected is a configuration',
  ),
  Case('--config without .py', TRAIN.replace('config.py', 'config'), 'config: no such file; expected'),
  Case('--config is a folder', TRAIN.replace('config.py', 'data'), 'data: no such file; expected'),
  Case('a syntax error', TRAIN, 'config.py: line 2: SyntaxError', file('def get_config():\n  return (\n')),
  Case(
    'no get_config',
    TRAIN.replace('config.py', 'other.py'),
    'other.py: no function get_config',
    raw('other.py', b'config = 3\n'),
  ),
  Case(
    'get_config needs an argument',
    TRAIN,
    'config.py: get_config.. missing 2 required positional arguments',
    file('def get_config(a, b):\n  return a\n'),
  ),
  Case(
    'an exception in the configuration',
    TRAIN,
    'config.py: line 8: ZeroDivisionError',
    with_line('config.loss.margin = 1 / 0'),
  ),
  Case('an import that fails', TRAIN, 'config.py: line 1: ModuleNotFoundError', file('import no_such_module\n')),
  Case('a misspelt key in the file', TRAIN, 'config.py: line 8: .*marginn', with_line('config.loss.marginn = 1.0')),
  Case(
    'a value of another type in the file',
    TRAIN,
    'config.py: line 8: TypeError',
    with_line('config.loss.margin = "wide"'),
  ),
  Case(
    'None for a number',
    TRAIN,
    'config.loss.margin is None, expected a finite float',
    with_line('config.loss.margin = None'),
  ),
  Case('a misspelt key', f'{TRAIN} --config.los.margin=1', "the configuration has no key 'los'"),
  Case('a word for a number', f'{TRAIN} --config.loss.margin=wide', '--config.loss.margin=wide: could not convert'),
  Case('a fraction for a whole number', f'{TRAIN} --config.training.seed=1.5', '--config.training.seed=1.5'),
  Case('NaN for a setting', f'{TRAIN} --config.loss.margin=nan', 'config.loss.margin is nan, expected a finite float'),
  Case('a negative margin', f'{TRAIN} --config.loss.margin=-1', 'config.loss.margin is -1.0, expected 0 or more'),
  Case(
    'a negative learning rate',
    f'{TRAIN} --config.optimizer.learning_rate=-1',
    'learning_rate is -1.0, expected positive',
  ),
  Case('an unknown loss', f'{TRAIN} --config.loss.base=triplet', "config.loss.base is 'triplet', expected 'distance_w"),
  Case('no batch', f'{TRAIN} --config.training.batch_size=0', 'config.training.batch_size is 0, expected at least 2'),
  Case(
    'a batch larger than the data',
    f'{TRAIN} --config.training.batch_size=512',
    'batch_size is 512, but there are only 200 captions',
  ),
  Case('heads that do not divide', f'{TRAIN} --config.hrem.num_heads=5', r'embedding_size \(32\) is not divisible by'),
  Case(
    'buckets that fall',
    f'{TRAIN} --config.data.length_buckets=(16,8)',
    r'length_buckets is \(16, 8\), expected increasing',
  ),
  Case(
    'a word among the buckets',
    TRAIN,
    'length_buckets is .*expected increasing',
    with_line("config.data.length_buckets = ('a', 'b')"),
  ),
  Case(
    'a zero-shot start without a text tower',
    f'{TRAIN} --config.model.start=zero_shot',
    "start='zero_shot' begins with what a text tower makes of texts: expected .* found 'bigru'",
  ),
  Case(
    'a text tower without its folder',
    f'{TRAIN} --config.model.text=tower',
    'config.model.weights is empty, expected the folder of the text tower',
  ),
  Case(
    'a text tower with packing that it cannot have',
    f'{TRAIN} --config.model.text=tower --config.model.weights=W/siglip --config.model.text_tower.causal=False',
    'config.data.pack is True, expected False',
  ),
  Case(
    'a vision tower that is not there',
    f'{TRAIN} --config.model.image=tower --config.model.image_weights=W/nothing',
    "config.model.image_weights='nothing': no such folder",
  ),
  Case('a protocol for other data', f'{TRAIN} --config.evaluation.protocol=coco', 'coco'),
  Case(
    'a test split that is not there',
    f'{TRAIN} --config.evaluation.test_split=testall',
    'testall_ims.npy and testall_caps.txt not',
  ),
  Case('an unknown variant', 'main --config=configs/demo.py:fussion --workdir=W/new', "variant 'fussion' is unknown"),
  Case(
    'a variant that contradicts itself',
    'main --config=configs/demo.py:keep_25+keep_75 --workdir=W/new',
    'contradicts itself',
  ),
  Case('a variant of no setting', 'main --config=configs/demo.py:fusion+ --workdir=W/new', 'part 2 of 2 is empty'),
  Case('a variant for a table only', 'main --config=configs/demo.py:full --workdir=W/new', 'python -m hrem_jax ablate'),
  Case('processes half told', f'{TRAIN} --num_processes=2', '--coordinator and --process_id missing'),
  Case('a coordinator alone', f'{TRAIN} --coordinator=host:1234', '--num_processes and --process_id missing'),
  Case(
    'a coordinator without a port',
    f'{TRAIN} --coordinator=host --num_processes=2 --process_id=1',
    "--coordinator is 'host', expected HOST:PORT with a port from 1 to 65535",
  ),
  Case(
    'a process beyond their number',
    f'{TRAIN} --coordinator=host:1234 --num_processes=2 --process_id=2',
    '--process_id is 2, expected 0 to 1',
  ),
  Case(
    'no process',
    f'{TRAIN} --coordinator=host:1234 --num_processes=0 --process_id=0',
    '--num_processes is 0, expected at least 1',
  ),
  Case('a word for the number of a process', f'{TRAIN} --process_id=first', 'flag --process_id=first: invalid literal'),
  Case(
    'config.json of a workdir is no JSON',
    EVALUATE,
    'run/config.json: not a configuration',
    edited(raw('run/config.json', b'{"data": ')),
  ),
  Case(
    'config.json of a workdir is not UTF-8',
    EVALUATE,
    'run/config.json: line 2 is not UTF-8: byte 0xff',
    edited(raw('run/config.json', b'{\n"\xff": 1}')),
  ),
  Case(
    'config.json with a key that is not known',
    EVALUATE,
    'run/config.json: not a configuration.*gamma',
    edited(entry('run/config.json', lambda c: c['loss'].update(gamma=1))),
  ),
  Case(
    'config.json with a value that cannot work',
    EVALUATE,
    'run/config.json: .*num_heads',
    edited(entry('run/config.json', lambda c: c['model'].update(num_heads=5))),
  ),
  Case('tokenizer.json of a workdir is gone', EVALUATE, 'run/tokenizer.json: no such file', gone('run/tokenizer.json')),
  Case(
    'tokenizer.json of a workdir is damaged',
    EVALUATE,
    'run/tokenizer.json: not a tokenizer file',
    edited(raw('run/tokenizer.json', b'{')),
  ),
]
