"""A training whose workdir lies in a bucket, here one of a server on this machine."""

import json
import logging
import os
import socket
from http import HTTPStatus

import jax
import numpy as np
import pytest
import synthetic
from runs import leaves, reports

import hrem_jax
from hrem_jax import leases
from hrem_jax.errors import UserError
from hrem_jax.locks import only_writer
from hrem_jax.paths import run_folder
from hrem_jax.retrieval.evaluation import evaluate_best
from hrem_jax.retrieval.run import restore_variables, step_folders
from hrem_jax.training import loop

pytest.importorskip('gcsfs')
server_module = pytest.importorskip('gcp_storage_emulator.server')
objects = pytest.importorskip('gcp_storage_emulator.handlers.objects')
NotFound = pytest.importorskip('gcp_storage_emulator.exceptions').NotFound
# Of fsspec's threads and of the server, whose clients leave when they like.
pytestmark = pytest.mark.filterwarnings('ignore')


def with_generations(patch: pytest.MonkeyPatch) -> None:
  """What Google's servers do and the emulator does not: say which version was read, refuse to replace another one."""
  download, upload = objects.download, objects._media_upload

  def generation(request, storage, name: str) -> str:
    try:
      return str(storage.get_file_obj(request.params['bucket_name'], name)['generation'])
    except NotFound:
      return '0'

  def telling_download(request, response, storage, *arguments, **options):
    response['x-goog-generation'] = generation(request, storage, request.params['object_id'])
    return download(request, response, storage, *arguments, **options)

  def refusing_upload(request, response, storage):
    (expected,) = request.query.get('ifGenerationMatch', [None])
    if expected not in (None, generation(request, storage, request.query['name'][0])):
      response.status = HTTPStatus.PRECONDITION_FAILED
      return None
    return upload(request, response, storage)

  patch.setattr(objects, 'download', telling_download)
  patch.setattr(objects, '_media_upload', refusing_upload)


@pytest.fixture(scope='module')
def bucket():
  """`gs://bucket` of an emulator, for this process: gcsfs and tensorstore read the environment when first used."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  for name in ('gcsfs', 'gcp_storage_emulator', 'fsspec'):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  server = server_module.create_server('127.0.0.1', port, in_memory=True, default_bucket='bucket')
  names = ('STORAGE_EMULATOR_HOST', 'TENSORSTORE_GCS_HTTP_URL')
  with pytest.MonkeyPatch.context() as patch:
    with_generations(patch)
    server.start()
    for name in names:
      patch.setenv(name, f'http://127.0.0.1:{port}')
    yield 'gs://bucket'
    server.stop()
  assert not set(names) & os.environ.keys()


@pytest.fixture(scope='module')
def config(directory):
  config = synthetic.tiny_config(directory)
  config.hrem.interaction, config.data.length_buckets = 'none', (12,)
  config.training.update(num_epochs=1, checkpoint_every_steps=5, log_every_steps=1)
  return config


def test_it_is_trained_stopped_gone_on_with_and_evaluated_as_a_local_one(bucket, directory, config, monkeypatch):
  workdir, local = run_folder(f'{bucket}/runs/one'), directory / 'local'
  expected = loop.train(config, local)

  class Stop(Exception):
    pass

  def stopping(steps, state, batch, step=loop.CompiledSteps.__call__):
    if int(state.step) == 6:
      raise Stop
    return step(steps, state, batch)

  with monkeypatch.context() as patch:
    patch.setattr(loop.CompiledSteps, '__call__', stopping)
    with pytest.raises(Stop):
      loop.train(config, workdir)
  assert step_folders(workdir / 'checkpoints') == [5]
  assert loop.train(config, workdir) == expected
  assert step_folders(workdir / 'checkpoints') == step_folders(local / 'checkpoints')
  for step in step_folders(local / 'checkpoints'):
    ours, theirs = (leaves(restore_variables(folder, step)) for folder in (workdir, local))
    assert {name: leaf.tobytes() for name, leaf in ours.items()} == {n: leaf.tobytes() for n, leaf in theirs.items()}
  assert json.loads((workdir / 'results.json').read_text()) == json.loads((local / 'results.json').read_text())
  assert reports(workdir) == reports(local)
  assert any(path.name.startswith('events') for path in (workdir / 'tensorboard').iterdir())
  assert evaluate_best(workdir) == evaluate_best(local)
  texts = hrem_jax.restore(str(workdir)).encode_texts(['a dog and a cat'])
  np.testing.assert_array_equal(texts, hrem_jax.restore(local).encode_texts(['a dog and a cat']))


def test_a_second_start_is_refused(bucket, config, monkeypatch):
  monkeypatch.setattr(leases, 'BEAT_SECONDS', 0.1)
  workdir = run_folder(f'{bucket}/runs/two')
  with only_writer(workdir):
    with pytest.raises(UserError, match='gs://bucket/runs/two: another process writes there'):
      loop.train(config, workdir)
    assert [path.name for path in workdir.iterdir()] == ['.lock']
  assert not workdir.exists()


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_computed(bucket, config):
  with pytest.raises(UserError, match='gs://nobody/run: cannot be written: '):
    loop.train(config, run_folder('gs://nobody/run'))


def test_neighbour_batches_want_a_local_workdir(bucket, config):
  changed = config.copy_and_resolve_references()
  changed.data.sampler = 'neighbours'
  with pytest.raises(UserError, match='keeps clusters in the workdir, expected a local one'):
    loop.train(changed, run_folder(f'{bucket}/runs/three'))
  assert jax.process_index() == 0
