"""How the instances of a batch are related and what that changed, as heat maps."""

from html import escape

import numpy as np

from hrem_jax.data.precomputed import Split
from hrem_jax.report.batch_view import BatchView, recalls
from hrem_jax.report.heat_map import Scale, diverging_scale, heat_map, scale_of
from hrem_jax.report.pictures import Pictures

NO_GRAPH = '<p class="quiet">This model has no relations among the instances of a batch: there is no graph to show.</p>'
_NAMES = {
  'i2i': 'pictures ask pictures',
  'i2t': 'pictures ask captions',
  't2i': 'captions ask pictures',
  't2t': 'captions ask captions',
}


def batch_section(view: BatchView | None, split: Split, pictures: Pictures) -> str:
  if view is None:
    return NO_GRAPH
  keys = _Keys(view, split, pictures)
  about = (
    f'{len(view.images)} pictures evenly spaced in {escape(split.name)}, each with its first caption, through the '
    'whole model as in training, without dropout. The row asks, the column is asked. At inference the graph is gone.'
  )
  return (
    f'<p class="quiet">{about}</p>{keys.listing}{keys.style}'
    '<h3>Connection matrix A: who may look at whom</h3>'
    f'{_blocks(view, view.connection.astype(np.float32), keys, Scale(0.0, 1.0), "A", "(1: connected)")}'
    '<h3>Relevance matrix S: how strongly</h3>'
    f'{_blocks(view, view.relevance, keys, None, "S", "relevance, no unit")}'
    f'<h3>What the interaction changed</h3>{_changes(view, keys)}'
  )


class _Keys:
  """What stands along the axes: numbers with small pictures, numbers with captions to point at."""

  def __init__(self, view: BatchView, split: Split, pictures: Pictures):
    ids = [split.ids[image] for image in view.images]
    thumbnails = [pictures.thumbnail(image_id) for image_id in ids]
    captions = [split.captions[text] for text in view.texts]
    rules = [f'.thumb-{row}{{background-image:url({found})}}' for row, found in enumerate(thumbnails, 1) if found]
    self.style = f'<style>{"".join(rules)}</style>' if rules else ''

    def image(row: int) -> str:
      picture = f'<span class="thumb thumb-{row}"></span>' if thumbnails[row - 1] else ''
      return f'<abbr title="{escape(ids[row - 1])}">{picture}P{row}</abbr>'

    rows = range(1, len(ids) + 1)
    self.images = [image(row) for row in rows]
    self.texts = [f'<abbr title="{escape(captions[row - 1])}">C{row}</abbr>' for row in rows]
    items = ''.join(
      f'<li>{image(row)} <b>C{row}</b> {escape(caption)}</li>' for row, caption in zip(rows, captions, strict=True)
    )
    self.listing = f'<ol class="axis-key">{items}</ol>'


def _blocks(view: BatchView, matrix: np.ndarray, keys: _Keys, scale: Scale | None, letter: str, unit: str) -> str:
  """Four tables, with one scale for all where it is given."""
  blocks = view.blocks(matrix)
  tables = []
  for name, block in blocks.items():
    # exp(-distance) is of one kind within both modalities; each direction between them has an MLP of its own.
    own = scale or (scale_of(blocks['i2i'], blocks['t2t']) if name[0] == name[2] else scale_of(block))
    asks, asked = (keys.images if side == 'i' else keys.texts for side in (name[0], name[2]))
    table = heat_map(f'{letter} {name}: {_NAMES[name]}', block, asks, asked, own)
    tables.append(f'<div>{table}{own.legend(unit)}</div>')
  return f'<div class="heats">{"".join(tables)}</div>'


def _changes(view: BatchView, keys: _Keys) -> str:
  shared = scale_of(view.before, view.after)
  change = view.after - view.before
  tables = ''.join(
    f'<div>{heat_map(title, values, keys.images, keys.texts, scale)}{scale.legend(unit)}</div>'
    for title, values, scale, unit in (
      ('Similarity before: of the embeddings', view.before, shared, 'cosine'),
      ('Similarity after: of the enhanced embeddings', view.after, shared, 'cosine'),
      ('After minus before', change, diverging_scale(change), 'difference of cosines'),
    )
  )
  lines = ''.join(
    f'<tr><th scope="row">{name}</th>{"".join(f"<td>{value:.1f}</td>" for value in recalls(values))}</tr>'
    for name, values in (('before', view.before), ('after', view.after))
  )
  return (
    '<div class="scroll"><table class="within"><caption>R@1 within the batch, percent</caption><thead><tr><td></td>'
    '<th scope="col">picture to caption</th><th scope="col">caption to picture</th></tr></thead>'
    f'<tbody>{lines}</tbody></table></div>'
    f'<div class="heats">{tables}</div>'
  )
