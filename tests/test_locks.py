"""A place has one writer: by the kernel's lock, by a file that is renewed, by an object in a bucket."""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorstore

from hrem_jax import leases
from hrem_jax.errors import UserError
from hrem_jax.leases import BucketObject, LeaseFile, hold
from hrem_jax.locks import only_writer

ROOT = pathlib.Path(__file__).parent.parent
WHO = rf'another process writes there \(process {os.getpid()} on .* since .*\); wait until it has ended, or take'


@pytest.mark.parametrize('beside', [False, True])
def test_the_second_is_refused_and_nothing_is_left(tmp_path, beside):
  place = tmp_path / 'new' / 'run'
  with only_writer(place, beside=beside) as still_ours:
    with pytest.raises(UserError, match=f'run: {WHO}'), only_writer(place, beside=beside):
      pass
    assert place.is_dir() != beside
    still_ours()
  assert list(tmp_path.iterdir()) == []
  with only_writer(place, beside=beside):
    pass


def test_what_was_there_stays(tmp_path):
  (tmp_path / 'run').mkdir()
  with only_writer(tmp_path / 'run'):
    (tmp_path / 'run' / 'file').write_text('x')
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['file']


def test_a_lock_of_a_killed_process_is_none(tmp_path):
  code = 'import sys, pathlib, time\nfrom hrem_jax.locks import only_writer\n'
  code += 'with only_writer(pathlib.Path(sys.argv[1])):\n  print("held", flush=True)\n  time.sleep(60)\n'
  process = subprocess.Popen([sys.executable, '-c', code, tmp_path / 'run'], cwd=ROOT, stdout=subprocess.PIPE)
  try:
    assert process.stdout.readline() == b'held\n'
    with pytest.raises(UserError, match=rf'process {process.pid} on'), only_writer(tmp_path / 'run'):
      pass
  finally:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  with only_writer(tmp_path / 'run'):
    pass


def test_a_lock_file_that_is_deleted_meanwhile_is_made_again(tmp_path):
  """Who had it deletes it while the next one has it open already: that one must not hold a file that is gone."""
  path, flock = tmp_path / '.lock', fcntl.flock

  def deleting_once(file, how, calls=[]):  # noqa: B006
    flock(file, how)
    if not calls:
      path.unlink()
    calls.append(file)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fcntl, 'flock', deleting_once)
    held = contextlib.ExitStack()
    held.enter_context(only_writer(tmp_path))
  with held, pytest.raises(UserError, match=WHO), only_writer(tmp_path):
    pass


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(leases, 'BEAT_SECONDS', 0.05)
  monkeypatch.setattr(leases, 'DEAD_SECONDS', 1.0)


@pytest.fixture(params=['file', 'bucket'])
def entry(request, tmp_path):
  """`memory://` has the versions of a bucket."""
  store = tensorstore.KvStore.open('memory://').result()
  return LeaseFile(tmp_path / 'lease') if request.param == 'file' else BucketObject(store, 'run/.lock')


@pytest.mark.usefixtures('quick')
def test_a_lease_that_is_renewed_is_refused_and_one_that_ended_is_gone(entry, tmp_path):
  with hold(entry, tmp_path) as still_ours:
    with pytest.raises(UserError, match=WHO), hold(entry, tmp_path):
      pass
    still_ours()
  assert entry.read()[0] is None
  with hold(entry, tmp_path):
    pass


@pytest.mark.usefixtures('quick')
def test_a_lease_of_a_killed_process_is_taken_over(entry, tmp_path, capsys):
  entry.write('process 7 on elsewhere since yesterday, abc, 5', entry.read()[1])
  with hold(entry, tmp_path):
    assert entry.read()[0].startswith(f'process {os.getpid()} on')
  assert 'process 7 on elsewhere since yesterday has not said that it ended; waiting 1 s' in capsys.readouterr().err


@pytest.mark.usefixtures('quick')
def test_who_was_still_for_too_long_finds_out(entry, tmp_path):
  with hold(entry, tmp_path) as still_ours:
    while entry.write('process 8 on elsewhere since now, abc, 0', entry.read()[1]) is None:
      pass

    def ask_for_long():
      for _ in range(500):
        still_ours()
        time.sleep(0.02)

    with pytest.raises(UserError, match='another one writes there now'):
      ask_for_long()
  assert entry.read()[0].startswith('process 8')  # not ours to delete


@pytest.mark.usefixtures('quick')
@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
  def refusing(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', refusing)
  with only_writer(tmp_path / 'run') as still_ours:
    still_ours()
    assert capsys.readouterr().err.count('this file system has no locks; a file that is renewed') == 1
    with pytest.raises(UserError, match=WHO), only_writer(tmp_path / 'run'):
      pass
  assert list(tmp_path.iterdir()) == []
