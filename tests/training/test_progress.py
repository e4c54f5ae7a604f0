"""Reports of a training where a side product cannot be written."""

import json

from hrem_jax.training import progress
from hrem_jax.training.progress import Progress


def test_without_tensorboard_training_goes_on(tmp_path, monkeypatch, capsys):
  """Its queue wants a semaphore, which wants /dev/shm; the error names no file."""

  def refusing(*arguments, **options):
    raise FileNotFoundError(2, 'No such file or directory')

  monkeypatch.setattr(progress.tensorboardX, 'SummaryWriter', refusing)
  with Progress(tmp_path, first_step=0, num_steps=2, steps_per_epoch=2, batch_size=4) as reports:
    for step in (1, 2):
      reports.training(step, {'loss': 2.0, 'learning_rate': 0.1})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2]
  assert capsys.readouterr().err.count('no TensorBoard') == 1
