"""The parameters of SCAN's public program (Lee et al., ECCV 2018) as ours: the tables of names."""

from collections.abc import Mapping

import numpy as np

from hrem_jax.ports.release import bigru_entries
from hrem_jax.ports.tables import Entry, dense, read_entries


def image_encoder_entries() -> list[Entry]:
  return dense('projection/linear', 'fc')


def text_encoder_entries() -> list[Entry]:
  return bigru_entries('language_model')


def read_scan(image_encoder: Mapping[str, np.ndarray], text_encoder: Mapping[str, np.ndarray], *, source: str) -> dict:
  """The program's two state dicts as `{'params': ...}`."""
  return {
    'params': {
      'image_encoder': read_entries(image_encoder, image_encoder_entries(), source=source),
      'text_encoder': read_entries(text_encoder, text_encoder_entries(), source=source),
    }
  }
