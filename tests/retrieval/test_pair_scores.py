"""A method without embeddings: blocks are the whole, resume after a kill, bounded memory, exact ties, mistakes."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import synthetic
from numpy.testing import assert_allclose, assert_array_equal
from score_pairs import World, matrix_of
from small_method import SmallMethod

from hrem_jax.errors import UserError
from hrem_jax.ops.ranking import ranks_from_similarity
from hrem_jax.retrieval import matcher, pair_scores
from hrem_jax.retrieval.encode import HostMemory
from hrem_jax.retrieval.evaluator import Evaluator
from hrem_jax.retrieval.run import Run
from hrem_jax.retrieval.score_file import ScoreFile
from hrem_jax.search import run_encoder
from hrem_jax.sharding import replicate

TESTS = pathlib.Path(__file__).parent.parent


def all_rows(split):
  return split.features.rows(np.arange(split.num_images))


def write_data(folder: pathlib.Path) -> pathlib.Path:
  synthetic.write_data_set(folder)
  path = folder / 'tiny_precomp' / 'test_caps.txt'
  captions = path.read_text().splitlines()
  captions[40] = captions[3]
  captions[7] = captions[60] = captions[64]
  path.write_text('\n'.join(captions) + '\n')
  return folder


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  return World(write_data(tmp_path_factory.mktemp('pairs')))


@pytest.fixture
def small_blocks(monkeypatch):
  """Four images at a time."""
  monkeypatch.setattr(pair_scores, 'MOST_IMAGES', 4)


@pytest.fixture
def computed(monkeypatch):
  """The blocks that were written: rows and part."""
  written, write = [], ScoreFile.write
  monkeypatch.setattr(ScoreFile, 'write', lambda *args: (written.append(args[1:3]), write(*args)))
  return written


def test_blocks_are_the_whole(world, small_blocks, computed):
  scores = world.scores()
  assert scores.shape == (13, 65)
  assert_allclose(matrix_of(scores), world.whole, atol=1e-6)
  assert {rows.start for rows, _ in computed} == {0, 4, 8, 12}  # the last block of images holds one
  parts = {part for _, part in computed}
  assert len(parts) >= 4  # of 16 captions each
  assert len(computed) == 4 * len(parts)


def test_the_door_of_all_evaluations(world):
  found = world.evaluator.evaluate(world.variables, world.split, protocol='all')
  ranks = ranks_from_similarity(world.whole, world.split.owner)
  assert found['t2i/mean_rank'] == pytest.approx(1 + np.mean(ranks.text_to_image.greater), abs=0.5)
  assert 0 < found['rsum'] < 600


def test_equal_captions_are_scored_once_and_tie(world, tmp_path):
  matrix, captions = matrix_of(world.scores(tmp_path)), world.split.captions
  assert len(set(captions)) < len(captions)
  assert np.load(next(tmp_path.iterdir()) / 'matrix.npy').shape == (13, len(set(captions)))
  for text, caption in enumerate(captions):
    assert_array_equal(matrix[:, text], matrix[:, captions.index(caption)])
  assert len(np.unique(matrix[0])) > len(set(captions)) // 2


def test_what_is_done_is_found_again(world, small_blocks, computed, tmp_path):
  first = matrix_of(world.scores(tmp_path))
  num_blocks = len(computed)
  computed.clear()
  assert_array_equal(matrix_of(world.scores(tmp_path)), first)
  assert not computed
  (folder,) = tmp_path.iterdir()
  assert folder.name.startswith('test_')
  # Other weights are another matrix.
  others = jax.tree.map(lambda x: 2 * x, world.variables)
  assert abs(matrix_of(world.evaluator.scores(others, world.split, folder=tmp_path)) - first).max() > 0.1
  assert (len(computed), len(list(tmp_path.iterdir()))) == (num_blocks, 2)


def test_a_stop_in_the_middle_and_a_block_that_is_not_whole(world, small_blocks, computed, monkeypatch, tmp_path):
  expected = matrix_of(world.scores())
  num_blocks = len(computed)
  computed.clear()
  check = pair_scores._check_finite

  def stop_after_five(*args):
    if len(computed) == 5:
      raise KeyboardInterrupt
    check(*args)

  monkeypatch.setattr(pair_scores, '_check_finite', stop_after_five)
  with pytest.raises(KeyboardInterrupt):
    world.scores(tmp_path)
  monkeypatch.setattr(pair_scores, '_check_finite', check)
  path = next(tmp_path.iterdir()) / 'matrix.npy'
  matrix = np.load(path, mmap_mode='r+')
  matrix[2, 3] += 1  # of a block that was done
  matrix.flush()
  computed.clear()
  assert_array_equal(matrix_of(world.scores(tmp_path)), expected)
  assert len(computed) == num_blocks - 5 + 1
  path.write_bytes(path.read_bytes()[:-9])  # cut off: made anew
  computed.clear()
  assert_array_equal(matrix_of(world.scores(tmp_path)), expected)
  assert len(computed) == num_blocks


def test_a_kill_between_numbers_and_their_checksum(tmp_path):
  program = f"""
import os, pathlib, signal, zlib
import numpy as np
from hrem_jax.retrieval import score_file
file = score_file.ScoreFile(pathlib.Path({str(tmp_path)!r}), 5, np.array([0, 3, 7]))
file.write(slice(0, 2), 0, np.full((2, 3), 1.5))
file.write(slice(2, 5), 1, np.zeros((3, 4)))
score_file.zlib = None  # the checksum is never reached
try:
  file.write(slice(2, 5), 0, np.full((3, 3), 2.5))
finally:
  os.kill(os.getpid(), signal.SIGKILL)
"""
  assert subprocess.run([sys.executable, '-c', program], check=False, cwd=TESTS.parent).returncode == -9
  file = ScoreFile(tmp_path, 5, np.array([0, 3, 7]))
  assert_array_equal(file.is_written(), [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
  assert (file.matrix[:2, :3] == 1.5).all()
  assert not ScoreFile(tmp_path, 5, np.array([0, 7])).is_written().any()  # other parts


def test_memory_bounds_a_block(world, computed, monkeypatch):
  """By what the compiler says that a program takes."""
  taken, make = {}, pair_scores._program

  def program(method, mesh, shapes):
    made = make(method, mesh, shapes)
    analysis, (_, images, _) = made.memory_analysis(), jax.tree.unflatten(*shapes)
    size = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    taken.setdefault(len(images.mask), []).append(size)
    return made

  monkeypatch.setattr(pair_scores, '_program', program)
  sizes = []
  for memory_mb in (2048.0, 0.1, 1e-6):
    computed.clear(), taken.clear()
    bounded = World(pathlib.Path(world.config.data.directory), score_memory_mb=memory_mb)
    assert_allclose(matrix_of(bounded.scores()), world.whole, atol=1e-6)
    sizes.append(max(rows.stop - rows.start for rows, _ in computed))
    if sizes[-1] > 1:
      assert max(taken[min(taken)]) <= 1e6 * memory_mb / 2
  assert sizes[0] == 13
  assert sizes[0] > sizes[1] > sizes[2] == 1


def test_fragments_beyond_the_bound_are_in_a_file():
  memory, floats = HostMemory(1), np.dtype(np.float32)
  assert not isinstance(memory.empty((100, 1000), floats), np.memmap)
  mapped = memory.empty((200, 1000), floats)
  assert isinstance(mapped, np.memmap)
  mapped[:] = 1
  assert mapped.sum() == 200_000
  assert not isinstance(memory.empty((100, 1000), floats), np.memmap)


def test_what_is_not_finite_is_named(world, tmp_path):
  broken = jax.tree.map(np.array, jax.device_get(world.variables))
  token = world.run.tokenizer.encode(['horse'])[0][0][0]
  broken['params']['embed']['embedding'][token] = np.nan
  text = next(row for row, caption in enumerate(world.split.captions) if 'horse' in caption)
  with pytest.raises(UserError, match=r'split test: the score of image \d+ and text (\d+) is NaN or infinite') as error:
    world.evaluator.scores(replicate(broken, world.mesh), world.split, folder=tmp_path)
  named = int(str(error.value).split('and text ')[1].split()[0])
  assert 'horse' in world.split.captions[named]
  assert text <= named


def test_a_matrix_for_each_direction_is_refused(world):
  evaluator = Evaluator(Run(world.config, world.run.tokenizer, SmallMethod(num_directions=2)), world.mesh)
  with pytest.raises(UserError, match=r'SmallMethod scores each direction in its own way \(2 matrices\)'):
    evaluator.scores(world.variables, world.split)


def test_the_matcher_of_such_a_run(world, monkeypatch):
  monkeypatch.setattr(matcher, 'load_best', lambda workdir, step=None: (world.run, world.variables, 12, world.mesh))
  restored = matcher.restore(world.config.data.directory)
  assert isinstance(restored, matcher.FragmentMatcher)
  regions, mask = all_rows(world.split)
  captions = world.split.captions[:9]
  assert_allclose(restored.similarity(list(regions), captions), world.whole[:, :9], atol=1e-6)
  assert restored.similarity([], captions).shape == (0, 9)
  assert restored.similarity(list(regions), []).shape == (13, 0)
  images, texts = restored.encode_images(regions, mask), restored.encode_texts([*captions, captions[0]])
  assert (images.fragments.shape, images.mask.shape) == ((13, 7, 17), (13, 7))
  assert texts.fragments.shape[:1] + texts.fragments.shape[2:] == (10, 17)
  scores = restored.method.apply(restored.variables, images, texts, method='score')[0]
  assert_allclose(scores[:, :9], world.whole[:, :9], atol=1e-6)
  assert_array_equal(texts.fragments[9], texts.fragments[0])
  assert restored.evaluate(world.split)['rsum'] > 0
  for wrong in (lambda: restored.encode_images([]), lambda: restored.encode_texts([])):
    with pytest.raises(UserError, match='expected at least one'):
      wrong()


def test_an_index_of_such_a_run_is_refused(world, monkeypatch):
  monkeypatch.setattr(
    run_encoder, 'restore', lambda *_, **__: matcher.FragmentMatcher(world.run, world.variables, 12, world.mesh)
  )
  with pytest.raises(UserError, match=r'runs/toy: SmallMethod scores pairs .* has no embeddings, which an index'):
    run_encoder.RunEncoder(pathlib.Path('runs/toy'))


def run_program(arguments: list[str], *, devices: int, processes: int = 1) -> None:
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'PYTHON': sys.executable,
    'PYTHONPATH': f'{TESTS.parent}:{TESTS}',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'PROGRAM': str(TESTS / 'score_pairs.py'),
  }
  command = [sys.executable, TESTS / 'score_pairs.py', *arguments]
  if processes > 1:
    command = [TESTS.parent / 'launch' / 'local_processes.sh', str(processes), '--', *arguments]
  subprocess.run(command, env=environment, check=True, timeout=600)


def test_eight_devices_give_the_scores_of_one(world, tmp_path):
  run_program([f'--data={world.config.data.directory}', f'--output={tmp_path}'], devices=8)
  assert_allclose(np.load(tmp_path / '0.npy'), matrix_of(world.scores()), atol=1e-6)


@pytest.mark.slow
def test_two_processes_share_a_matrix_and_go_on_with_it(world, tmp_path):
  arguments = [f'--data={world.config.data.directory}', f'--output={tmp_path}', f'--store={tmp_path}']
  run_program(arguments, devices=1, processes=2)
  (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
  expected = matrix_of(world.scores(tmp_path))
  assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]  # one process finds the same matrix
  assert_allclose(expected, world.whole, atol=1e-6)
  np.load(folder / 'written.npy', mmap_mode='r+')[4:, 2] = 0
  np.load(folder / 'matrix.npy', mmap_mode='r+')[5] = 7
  run_program(arguments, devices=1, processes=2)
  for process in (0, 1):
    assert_allclose(np.load(tmp_path / f'{process}.npy'), expected, atol=1e-6)
