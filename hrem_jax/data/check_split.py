"""Examines the files of one split and collects everything that is wrong with them."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from tokenizers import pre_tokenizers

from hrem_jax.data.boxes import box_problems
from hrem_jax.data.captions import CAPTIONS_PER_IMAGE, assign_owners, examine_lines, id_count_problem, image_ids
from hrem_jax.data.features import (
  embeddings_path,
  not_finite_embedding,
  num_regions_path,
  num_regions_problems,
  open_embeddings,
  open_features,
  read_num_regions,
)
from hrem_jax.data.outliers import describe_far, far_outside, largest_values
from hrem_jax.data.precomputed import GALLERY
from hrem_jax.errors import UserError

CHUNK_BYTES = 2**26  # of features in memory
CHUNK_ROWS = 2**14  # of embeddings in memory


@dataclasses.dataclass
class ExaminedSplit:
  """What was found; what a broken file does not tell is empty or None."""

  name: str
  folder: pathlib.Path
  problems: list[str] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)
  captions: list[str] = dataclasses.field(default_factory=list)
  ids: list[str] | None = None  # the lines of the file
  shape: tuple[int, ...] | None = None  # of the features file
  dtype: np.dtype | None = None
  num_regions: Int[np.ndarray, ' n'] | None = None  # of each row of the file
  owner: Int[np.ndarray, ' t'] | None = None
  repeat: int = 1

  def path(self, ending: str) -> pathlib.Path:
    return self.folder / f'{self.name}_{ending}'

  @property
  def num_images(self) -> int:
    return self.shape[0] // self.repeat


def examine_split(folder: pathlib.Path, name: str, *, widest: int, scanned: Callable[[int], None]) -> ExaminedSplit:
  """Reads all files of a split, the features a chunk at a time.

  Args:
    folder: In the precomputed layout.
    name: Of the split.
    widest: Words of the widest bucket, start and end included: a warning where a caption has more.
    scanned: Is told how many bytes of features have been read since it was last told.
  """
  split = ExaminedSplit(name, folder)
  _read_shape(split)
  if split.name != GALLERY:
    _read_captions(split, widest)
  if split.path('ids.txt').is_file():
    split.ids, problems = examine_lines(split.path('ids.txt'))
    split.problems += problems
  if split.shape and split.captions:
    _assign(split)
  elif split.shape and split.ids and split.name == GALLERY and len(split.ids) != split.num_images:
    split.problems.append(id_count_problem(split.path('ids.txt'), len(split.ids), split.num_images, 0))
  if split.ids and len(split.ids) in (len(split.captions), split.shape and split.num_images):
    split.problems += id_problems(split.path('ids.txt'), split.ids, len(split.captions), split.owner)
  if split.shape:
    _scan(split, scanned)
    split.problems += beside_problems(split)
  return split


def _read_shape(split: ExaminedSplit) -> None:
  """What the headers say, and the numbers of regions."""
  path = split.path('ims.npy')
  try:
    features = open_features(path)
  except UserError as error:
    split.problems.append(str(error))
    return
  split.shape, split.dtype = features.shape, features.dtype
  counts_path = num_regions_path(path)
  if not counts_path.exists():
    split.num_regions = np.full(split.shape[0], split.shape[1])
    return
  try:
    split.num_regions = read_num_regions(counts_path, split.shape[0])
    split.problems += num_regions_problems(counts_path, split.num_regions, split.shape[1])
  except UserError as error:
    split.problems.append(str(error))


def _read_captions(split: ExaminedSplit, widest: int) -> None:
  path = split.path('caps.txt')
  split.captions, problems = examine_lines(path)
  split.problems += problems
  splitter = pre_tokenizers.BertPreTokenizer()
  for number, caption in enumerate(split.captions, start=1):
    if len(caption) + 2 <= widest:
      continue  # fewer words than letters
    count = len(splitter.pre_tokenize_str(caption)) + 2
    if count > widest:
      split.warnings.append(
        f'{path}: line {number} has {count} words, start and end included; the widest bucket holds {widest}, '
        'the others are cut off'
      )


def _assign(split: ExaminedSplit) -> None:
  """Which caption belongs to which image, if one of the conventions fits."""
  path, num_captions = split.path('ids.txt'), len(split.captions)
  try:
    split.owner, split.repeat = assign_owners(split.path('ims.npy'), num_captions, split.ids)
    image_ids(split.num_images, split.owner, split.ids, path)
  except UserError as error:
    split.problems.append(str(error))
  if split.owner is None and split.ids and len(split.ids) not in (split.num_images, num_captions):
    split.problems.append(id_count_problem(path, len(split.ids), split.num_images, num_captions))


def id_problems(
  path: pathlib.Path, ids: Sequence[str], num_captions: int, owner: Int[np.ndarray, ' t'] | None
) -> list[str]:
  """Ids that name two images, and images that have two ids.

  Args:
    path: For the messages.
    ids: One per image, or one per caption.
    num_captions: Lines of the captions file.
    owner: The image of each caption, where it is known; else a run of equal ids is taken for one.
  """
  is_per_caption = len(ids) == num_captions
  if is_per_caption:
    runs = itertools.accumulate((a != b for a, b in itertools.pairwise(ids)), initial=0)
    images, rule = runs if owner is None else owner.tolist(), 'the ids of an image stand in one run'
  else:
    images, rule = range(len(ids)), 'each image has its own'
  problems, line_of_id, first_of_image = [], {}, {}
  for number, (image_id, image) in enumerate(zip(ids, images, strict=True), start=1):
    begin, its_id = first_of_image.setdefault(image, (number, image_id))
    if image_id != its_id:
      problems.append(f'{path}: line {number} is {image_id!r}, but line {begin}, of the same image, {its_id!r}')
      continue
    earlier, its_image = line_of_id.setdefault(image_id, (number, image))
    if image != its_image and number == begin:
      problems.append(f'{path}: line {number}: {image_id!r} is already on line {earlier}, for another image; {rule}')
  return problems


def _scan(split: ExaminedSplit, scanned: Callable[[int], None]) -> None:
  """Every row of the features: finite in its real regions, and equal to the others of its image where rows repeat."""
  path, (num_rows, max_regions, region_size) = split.path('ims.npy'), split.shape
  known = np.ones(num_rows) if split.num_regions is None else split.num_regions  # one region is real in any case
  may_repeat = num_rows == len(split.captions) and num_rows % CAPTIONS_PER_IMAGE == 0
  groups_at_a_time = max(CHUNK_BYTES // (max_regions * region_size * split.dtype.itemsize * CAPTIONS_PER_IMAGE), 1)
  same, largest = [], []
  for start in range(0, num_rows, groups_at_a_time * CAPTIONS_PER_IMAGE):
    # Opened anew: what was read through a memory map stays resident as long as the map does.
    chunk = np.array(open_features(path)[start : start + groups_at_a_time * CAPTIONS_PER_IMAGE])
    is_real = np.arange(max_regions) < known[start : start + len(chunk), None]
    split.problems += not_finite(path, chunk, is_real, start)
    largest.append(largest_values(chunk, is_real))
    if may_repeat:
      same.append(like_first(chunk, CAPTIONS_PER_IMAGE))
    scanned(chunk.nbytes)
  by_ids = split.ids is not None and len(split.ids) == len(split.captions)
  if same and (split.repeat > 1 or not by_ids):
    split.problems += repeat_problems(path, np.concatenate(same), split.repeat)
  split.warnings += far_warnings(path, np.concatenate(largest))


def far_warnings(path: pathlib.Path, largest: Float[np.ndarray, ' n']) -> list[str]:
  """The rows whose largest value, given for each, lies far outside the others; what is not finite is a problem."""
  rows = np.flatnonzero(far_outside(np.where(np.isfinite(largest), largest, 0)) & np.isfinite(largest))
  return [describe_far(f'{path}: row {row} (counted from 0)', largest[row], largest) for row in rows]


def beside_problems(split: ExaminedSplit) -> list[str]:
  """What is wrong with the optional files that have a row for each row, or image, of the features."""
  problems, boxes, embeddings = [], split.path('boxes.npy'), embeddings_path(split.path('ims.npy'))
  if boxes.is_file() and split.num_regions is not None:
    counts = np.where(split.num_regions <= split.shape[1], split.num_regions, 0)  # the others are a problem already
    problems += box_problems(boxes, np.arange(split.shape[1]) < counts[:: split.repeat, None])
  if embeddings.is_file():
    try:
      array = open_embeddings(embeddings, split.shape[0])
    except UserError as error:
      return [*problems, str(error)]
    for start in range(0, len(array), CHUNK_ROWS):
      is_finite = np.isfinite(array[start : start + CHUNK_ROWS]).all(axis=1)
      problems += [not_finite_embedding(embeddings, start + row) for row in np.flatnonzero(~is_finite)]
  return problems


def not_finite(
  path: pathlib.Path, regions: Float[np.ndarray, 'n r f'], is_real: Bool[np.ndarray, 'n r'], start: int
) -> list[str]:
  """The rows of a chunk, the first being row `start`, that hold NaN or infinity in a real region."""
  wrong = ~np.isfinite(regions) & is_real[..., None]
  problems = []
  for row in np.flatnonzero(wrong.any(axis=(1, 2))):
    region, feature = np.argwhere(wrong[row])[0]
    where = f'row {start + row} (counted from 0) holds {regions[row, region, feature]}'
    problems.append(f'{path}: {where} at region {region}, feature {feature}')
  return problems


def like_first(regions: Float[np.ndarray, 'n r f'], times: int) -> Bool[np.ndarray, 'n']:
  """Whether each row holds the same bytes as the first of its group of `times` rows."""
  groups = regions.view(f'u{regions.dtype.itemsize}').reshape(len(regions) // times, times, -1)
  return (groups == groups[:, :1]).all(axis=2).reshape(-1)


def repeat_problems(path: pathlib.Path, same: Bool[np.ndarray, 'n'], repeat: int) -> list[str]:
  """Where the rows of one image differ: in a file that is read through a stride, or nearly could be."""
  if repeat == 1 and not same.reshape(-1, CAPTIONS_PER_IMAGE).all(axis=1).any():
    return []
  first = f'the first of its {CAPTIONS_PER_IMAGE}, though there are as many rows as captions and others do repeat'
  return [f'{path}: row {row} (counted from 0) differs from {first}' for row in np.flatnonzero(~same)]
