"""The page of a run that was converted from the release: a BERT, no graph, no curves, no pictures."""

import numpy as np
import synthetic

from hrem_jax.report.page import write_report
from hrem_jax.retrieval.convert import convert


def test_a_converted_run_has_a_page(golden, tmp_path):
  vocabulary, data = tmp_path / 'vocab.txt', tmp_path / 'data' / 'tiny_precomp'
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'and', 'near', 'the', 'hor', '##se', *synthetic.WORDS]
  pieces = [piece for piece in pieces if piece != 'horse']
  pieces += [f'word{number}' for number in range(200 - len(pieces))]
  vocabulary.write_text('\n'.join(pieces) + '\n')
  synthetic.write_data_set(tmp_path / 'data')
  regions = np.load(data / 'test_ims.npy')
  np.save(data / 'test_ims.npy', np.tile(regions, 4)[..., :48])
  (data / 'test_caps.txt').write_text('a horse near the dog\n' * 65, encoding='utf-8')
  workdir = tmp_path / 'run'
  convert(golden / 'model_best.pth', workdir, vocabulary=vocabulary, data=tmp_path / 'data', data_name='tiny')
  page = write_report(workdir).read_text('utf-8')
  assert 'no relations among the instances of a batch' in page
  assert 'No curves' in page
  assert 'Cosine of word (row) and region (column)' in page
  assert '<th scope="row">horse</th>' in page  # two pieces, one word
  assert '##se' not in page
