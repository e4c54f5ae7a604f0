"""Zero-shot transfer: a run that was trained on one data set, evaluated on another one (docs/protocols.md)."""

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from hrem_jax.data.precomputed import Split, data_folder
from hrem_jax.data.provenance import check_same_features, read_provenance
from hrem_jax.data.tokenizer import TextTokenizer, tokenize
from hrem_jax.errors import UserError
from hrem_jax.files import to_json, write_text
from hrem_jax.methods.registry import validate
from hrem_jax.retrieval.evaluation import average, chance, load_member, zero_shot
from hrem_jax.retrieval.protocols import Metrics, format_table
from hrem_jax.retrieval.run import load_test_split, open_run
from hrem_jax.retrieval.split_protocols import recall_only

MOST_UNKNOWN = 0.5  # share of words that a model need not know to be worth a figure


def transfer(
  workdir: pathlib.Path,
  *,
  data: str | pathlib.Path,
  name: str,
  split: str = 'test',
  settings: Mapping[str, str] | None = None,
  output: pathlib.Path | None = None,
  say: Callable[[str], None] = print,
) -> Metrics:
  """Evaluates the best checkpoint of a workdir on a split of a data set that it was not trained on.

  The vocabulary, and everything else of the model, is that of the run.

  Args:
    workdir: Of the run. Its `results.json` stays as it is.
    data: The folder with `NAME_precomp` in it.
    name: Of the data set.
    split: Of the data set, for example `testall`.
    settings: Keys of the section `evaluation` that shall differ from the run's: `protocol`, `ties`, `caption_ids`,
      `class_labels`. Without `protocol` it is `all`, whatever the run's own test split is evaluated by.
    output: JSON file; None is `WORKDIR/transfer_NAME_SPLIT.json`.
    say: Gets what is to be printed.

  Returns:
    The metrics, as from `hrem_jax.retrieval.split_protocols.evaluate_split`.

  Raises:
    UserError: No such run or data, features of another size or encoder than it was trained on, a vocabulary that does
      not know half of the words, or what the protocol needs is missing.
  """
  run = open_run(workdir)
  config = recall_only(run.config)
  config.data.update(source='precomputed', directory=str(data), name=name)
  config.evaluation.update(test_split=split, **(settings or {}))
  validate(config)
  target = load_test_split(config)
  target.check_region_size(config.model.region_size, f'{workdir} was trained on ')
  check_same_features(read_provenance(workdir), data_folder(config.data), whose=f'{workdir} was trained on')
  words = check_vocabulary(target, run.tokenizer, str(workdir), config.data.length_buckets[-1])
  member = load_member(workdir, config)
  metrics, guessed, before = average([member]), chance(member), zero_shot(member)
  trained_on = run.config.data.name
  line = f'{name}, {split}, with the checkpoint of step {member.step} of {workdir}, trained on {trained_on}'
  about = {'workdir': str(workdir), 'step': member.step, 'trained_on': trained_on, 'data': name, 'split': split}
  about |= {'protocol': config.evaluation.protocol, 'ties': config.evaluation.ties, **words}
  if jax.process_index() == 0:
    output = workdir / f'transfer_{name}_{split}.json' if output is None else output
    results = about | {'metrics': metrics, 'chance': guessed} | ({'zero_shot': before} if before else {})
    write_text(output, to_json(results))
    unknown, cut = words['unknown_words'], words['cut_captions']
    table = format_table(metrics, guessed, before)
    say(f'{line}\n{unknown:.1%} of the words are unknown, {cut} captions were cut\n{table}')
  return metrics


def check_vocabulary(split: Split, tokenizer: TextTokenizer, source: str, widest: int) -> dict[str, float | int]:
  """How well the captions of a split fit a tokenizer.

  Args:
    split: Its captions are looked at.
    tokenizer: Of the run.
    source: Of the tokenizer, for the error message.
    widest: Tokens of the longest caption that is not cut, the two special ones included.

  Returns:
    `unknown_words`, the share of tokens that are unknown, and `cut_captions`, the number of captions that are too long.

  Raises:
    UserError: More than half of the tokens are unknown: another language, or another kind of text.
  """
  tokenized = tokenize(split.captions, tokenizer)
  unknown = float(np.mean(tokenized.tokens == tokenizer.unknown)) if len(tokenized.tokens) else 0.0
  if unknown > MOST_UNKNOWN:
    raise UserError(
      f'{source}: its vocabulary does not know {unknown:.0%} of the words of split {split.name} (the first caption is '
      f'{split.captions[0][:60]!r}); expected is a model of the same language and kind of captions'
    )
  return {'unknown_words': unknown, 'cut_captions': int(np.sum(tokenized.lengths > widest))}
