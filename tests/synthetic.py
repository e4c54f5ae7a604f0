"""A tiny data set in the precomputed layout: five captions that name what an image's regions hold."""

import pathlib

import numpy as np

WORDS = ['dog', 'cat', 'car', 'tree', 'boat', 'bird', 'house', 'horse', 'ball', 'lamp', 'fish']
REGION_SIZE = 13
NUM_REGIONS = 7


def write_split(folder: pathlib.Path, split: str, num_images: int, *, seed: int, repeat: int = 1) -> None:
  """Each image holds three things; a region is the direction of its thing plus noise."""
  rng = np.random.default_rng(seed)
  directions = np.random.default_rng(0).normal(size=(len(WORDS), REGION_SIZE))
  regions, captions = [], []
  for _ in range(num_images):
    things = rng.choice(len(WORDS), size=3, replace=False)
    seen = rng.choice(things, size=NUM_REGIONS)
    seen[:3] = things
    regions.append(directions[seen] + 0.3 * rng.normal(size=(NUM_REGIONS, REGION_SIZE)))
    for _ in range(5):
      first, second, third = (WORDS[thing] for thing in rng.permutation(things))
      captions.append(f'a {first} and a {second}' + (f' near the {third}' if rng.random() < 0.7 else ''))
  folder.mkdir(parents=True, exist_ok=True)
  np.save(folder / f'{split}_ims.npy', np.repeat(np.asarray(regions, np.float32), repeat, axis=0))
  (folder / f'{split}_caps.txt').write_text('\n'.join(captions) + '\n', encoding='utf-8')


def write_data_set(directory: pathlib.Path, *, num_train: int = 40, num_dev: int = 11, num_test: int = 13) -> None:
  """`directory/tiny_precomp` with all three splits; dev repeats every row five times, as the field's files do."""
  folder = directory / 'tiny_precomp'
  write_split(folder, 'train', num_train, seed=1)
  write_split(folder, 'dev', num_dev, seed=2, repeat=5)
  write_split(folder, 'test', num_test, seed=3)


def compile_less() -> None:
  """Each width of the graph is a program of its own in every step: three of them (test_relations has all 14)."""
  from hrem_jax.ops import text_blocks

  text_blocks.CPU = text_blocks.CPU._replace(num_widths=3)


def tiny_config(directory: pathlib.Path, method: str = 'hrem'):
  """Small enough to train in seconds; the second phase of an objective begins in the second epoch."""
  from hrem_jax.methods.registry import default_config

  own = {
    'hrem': {'hrem.num_heads': 4, 'hrem.association.top_k': 5, 'hrem.warmup_steps': 15},
    'gpo': {'loss.hardest_from': (15, 'steps')},
    'scan': {'loss.hardest_from': (15, 'steps')},
  }
  config = default_config(method)
  config.data.directory, config.data.name, config.data.cache = str(directory), 'tiny', str(directory / 'cache')
  config.data.length_buckets, config.data.min_word_count = (8, 12), 1
  config.model.update(region_size=REGION_SIZE, embedding_size=32, text='bigru')
  config.model.bigru.word_size = 11
  config.optimizer.update(learning_rate=3e-3, language_model_lr_factor=1.0, decay_epochs=(30,))
  config.training.update(batch_size=16, num_epochs=3, log_every_steps=4, checkpoint_every_steps=10)
  config.evaluation.batch_size = 16
  config.update_from_flattened_dict(own.get(method, {}))
  return config


def load_training_split(directory: pathlib.Path):
  """Configuration, training split, its tokens and their tokenizer, of a new data set in `directory`."""
  from hrem_jax.data.precomputed import data_folder, load_split
  from hrem_jax.data.tokenizer import build_vocabulary, tokenize

  write_data_set(directory)
  config = tiny_config(directory)
  split = load_split(data_folder(config.data), 'train')
  tokenizer = build_vocabulary(split.captions)
  return config, split, tokenize(split.captions, tokenizer), tokenizer


def make_batches(tiny, *, process=(0, 1), num_devices=1, **changes):
  """Training batches of what `load_training_split` returned; `changes` are dotted keys of the configuration."""
  from hrem_jax.data.pipeline import TrainingBatches

  config, split, tokenized, tokenizer = tiny
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(changes)
  return TrainingBatches(split, tokenized, tokenizer, config, process=process, num_devices=num_devices)


def state_on_disk(workdir: pathlib.Path, step: int) -> dict:
  """With plain Orbax, as docs/checkpoints.md says."""
  import jax
  import orbax.checkpoint as ocp

  folder = (workdir / 'checkpoints' / str(step) / 'state').absolute()
  with ocp.PyTreeCheckpointer() as checkpointer:
    names = checkpointer.metadata(folder).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
    return checkpointer.restore(folder, restore_args=as_numpy)


def write_run(config, workdir: pathlib.Path) -> None:
  """What training leaves behind, with random parameters and without the minute of compiling a step."""
  import jax.numpy as jnp

  from hrem_jax.data.pipeline import read_ahead
  from hrem_jax.retrieval.evaluation import evaluate_best
  from hrem_jax.retrieval.evaluator import Evaluator
  from hrem_jax.sharding import data_mesh
  from hrem_jax.training.checkpoint import Checkpoints
  from hrem_jax.training.progress import Progress
  from hrem_jax.training.setup import first_state, prepare

  setup, mesh = prepare(config, workdir), data_mesh()
  state = first_state(setup, mesh).replace(step=jnp.asarray(12))
  scores = Evaluator(setup.run, mesh).evaluate(state.variables, setup.selection, protocol='all')
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, read_ahead(setup.batches, setup.num_steps), scores)
    checkpoints.wait()
  with Progress(workdir, first_step=0, num_steps=12, steps_per_epoch=12, batch_size=16) as progress:
    for step in range(2, 13, 2):
      terms = {'loss/base': 9.0 / step} | ({'loss/cross': 5.0, 'loss/relation': 1e-3} if step > 6 else {})
      progress.training(step, {'loss': sum(terms.values()), 'learning_rate': 1e-3, 'gradient_norm': step, **terms})
    progress.evaluation(12, 'dev', scores)
    step, metrics = evaluate_best(workdir)
    progress.evaluation(step, 'test', metrics)
