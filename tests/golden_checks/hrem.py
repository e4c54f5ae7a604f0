"""HREM beside the authors' program (tests/golden/README.md): what a file holds follows from its keys."""

from golden_checks import hrem_model, hrem_parts, hrem_training
from golden_checks.golden_file import GoldenFile


def check(file: GoldenFile) -> None:
  kinds = {
    hrem_model.check_weights: 'image_encoder.fc.fc.weight' in file,
    hrem_model.check_encoders: 'img_emb_notnorm' in file,
    hrem_parts.check_graph: 'probe' in file,
    hrem_parts.check_trimmed_relations: 't2i_relation' in file and 'img_emb' not in file,
    hrem_parts.check_hinge: any(name.endswith('/mv0_mr0/loss') for name in file.names()),
    hrem_parts.check_distance_weighted: any(name.endswith('/weight_im') for name in file.names()),
    hrem_parts.check_metrics: any(name.endswith('/sims') for name in file.names()),
    hrem_training.check_objective: 'batch/images' in file,
    hrem_training.check_trajectory: 'batch/00/images' in file,
  }
  for check_kind, is_there in kinds.items():
    if is_there:
      check_kind(file)
