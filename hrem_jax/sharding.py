"""One mesh axis, `data`: the state is replicated, a batch is split over it. Losses know nothing of this."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = 'data'


def data_mesh() -> Mesh:
  """All devices of all processes along the axis `data`.

  Auto axes: the compiler splits what follows from the inputs; `jax.make_mesh` gives explicit ones by default.
  """
  return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(tree, mesh: Mesh):
  """Puts host arrays that every process has in full on all devices."""
  sharding = replicated(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def split_whole(tree, mesh: Mesh):
  """Makes global arrays, split by rows, from host arrays that every process has in full."""
  sharding = split_rows(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda where: x[where]), tree)


def split_batch(batch, mesh: Mesh):
  """Makes global arrays, split by rows, from the rows that this process holds."""
  sharding = split_rows(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
