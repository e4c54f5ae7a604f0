"""The notebook runs from a clean kernel, and lies in the repository without what it printed."""

import os
import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def notebook():
  notebook = nbformat.read(ROOT / 'launch' / 'colab_tpu.ipynb', as_version=4)
  nbformat.validate(notebook)
  return notebook


def test_outputs_are_stripped(notebook):
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert len(code) >= 7
  assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_starts_with_no_settings_of_a_test(notebook):
  (parameters,) = [cell.source for cell in notebook.cells if cell.id == 'parameters']
  assert "REPOSITORY = ''\n" in parameters
  assert 'NUM_TRAIN, NUM_DEV, NUM_TEST = 2000, 250, 500' in parameters


@pytest.mark.slow
def test_it_trains_restores_and_shows_pictures(notebook, tmp_path, monkeypatch):
  monkeypatch.setenv('HREM_QUICK', '1')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
  NotebookClient(
    notebook, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}
  ).execute()
  outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == 'code'}
  said = {name: ''.join(output.get('text', '') for output in found) for name, found in outputs.items()}
  assert said['devices'] == 'hrem_jax 0.1.0 for CPU\n'
  assert 'rSum:' in said['train']
  assert re.match(r'step \d+ on \[CpuDevice\(id=0\)\]: 24 pictures, 32 numbers each\n', said['restore'])
  shown = [output['data']['text/html'] for name in ('search', 'own') for output in outputs[name]]
  assert len(shown) == 5
  for html in shown:
    assert html.count('<img src="data:image/webp;base64,') == 5
  assert 'a dog beside a tree' in shown[-1]
  assert (tmp_path / 'runs' / 'demo' / 'report.html').is_file()
