"""The names of BERT's tensors in Hugging Face's and the release's files, and ours."""

from hrem_jax.ports.tables import Entry, dense, norm


def bert_entries(ours: str = '', theirs: str = '') -> list[Entry]:
  """The table for `hrem_jax.models.bert.Bert`; `ours` and `theirs` are prefixes with their separator."""
  layer, their_layer = f'{ours}layers', f'{theirs}encoder.layer.{{layer}}'
  embeddings = f'{theirs}embeddings'
  tables = [f'{kind}_embeddings' for kind in ('word', 'position', 'token_type')]
  return [
    *(Entry(f'{ours}{table}', f'{embeddings}.{table}.weight') for table in tables),
    *norm(f'{ours}embedding_norm', f'{embeddings}.LayerNorm'),
    *(
      entry
      for name in ('query', 'key', 'value')
      for entry in dense(f'{layer}/attention/{name}', f'{their_layer}.attention.self.{name}')
    ),
    *dense(f'{layer}/attention/output', f'{their_layer}.attention.output.dense'),
    *norm(f'{layer}/attention_norm', f'{their_layer}.attention.output.LayerNorm'),
    *dense(f'{layer}/feed_forward_in', f'{their_layer}.intermediate.dense'),
    *dense(f'{layer}/feed_forward_out', f'{their_layer}.output.dense'),
    *norm(f'{layer}/feed_forward_norm', f'{their_layer}.output.LayerNorm'),
  ]
