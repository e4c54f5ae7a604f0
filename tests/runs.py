"""What a training leaves in its workdir, for comparison of two of them."""

import json
import pathlib

import numpy as np
import synthetic

from hrem_jax.retrieval.run import best_step, step_folders


def reports(workdir: pathlib.Path) -> list[dict]:
  """Every line of `metrics.jsonl`, repeated ones too, without the speed."""
  lines = (workdir / 'metrics.jsonl').read_text('utf-8').splitlines()
  return [{k: v for k, v in json.loads(line).items() if k != 'examples_per_second'} for line in lines]


def leaves(tree, path: str = '') -> dict[str, np.ndarray]:
  if not isinstance(tree, dict | list):
    return {} if tree is None else {path: np.asarray(tree)}
  items = tree.items() if isinstance(tree, dict) else enumerate(tree)
  return {name: leaf for key, value in items for name, leaf in leaves(value, f'{path}/{key}').items()}


def assert_states_equal(ours, theirs) -> None:
  """Bit for bit, by bytes: NaN equals itself and -0 is not 0."""
  ours, theirs = leaves(ours), leaves(theirs)
  assert ours.keys() == theirs.keys()
  for name, leaf in ours.items():
    assert (leaf.shape, leaf.dtype) == (theirs[name].shape, theirs[name].dtype), name
    assert leaf.tobytes() == theirs[name].tobytes(), name


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
  """Checkpoints, the choice among them, reports, results and clusters."""
  steps = step_folders(theirs / 'checkpoints')
  assert step_folders(ours / 'checkpoints') == steps
  assert best_step(ours) == best_step(theirs)
  for step in steps:
    assert_states_equal(synthetic.state_on_disk(ours, step), synthetic.state_on_disk(theirs, step))
    for name in ('data/process_0-of-1.json', 'metrics/metrics'):
      path = pathlib.Path('checkpoints') / str(step) / name
      assert (ours / path).read_bytes() == (theirs / path).read_bytes()
  assert reports(ours) == reports(theirs)
  for name in ('results.json', 'config.json', 'tokenizer.json'):
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
  for path in (theirs / 'neighbours').glob('*.npy'):
    assert (ours / 'neighbours' / path.name).read_bytes() == path.read_bytes()
