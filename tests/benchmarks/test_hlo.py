"""The reader of compiled programs counts what was written: products, loops, branches, collectives."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.hlo import costs

LEFT, RIGHT = jnp.ones((3, 5)), jnp.ones((5, 7))
ONE = 3 * 5 * 7


def counted(function, *arguments) -> int:
  return costs(jax.jit(function).lower(*arguments).compile().as_text()).multiply_adds.total()


def test_a_product():
  assert counted(jnp.matmul, LEFT, RIGHT) == ONE


def test_a_product_with_batch_axes_and_its_gradients():
  x, y = jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7))
  loss = lambda x, y: jnp.sum(jnp.einsum('bij,bjk->bik', x, y) ** 2)  # noqa: E731
  assert counted(jax.grad(loss, argnums=(0, 1)), x, y) == 3 * 2 * ONE


def test_a_loop_counts_as_often_as_it_runs():
  def repeat(square):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ square), None), square, length=11)[0]

  assert counted(repeat, jnp.ones((13, 13))) == 11 * 13**3


def test_of_branches_the_most_expensive_counts():
  def choose(index, square):
    branches = [lambda x: x, lambda x: x @ x, lambda x: x @ (x @ x)]
    return jax.lax.switch(index, branches, square)

  assert counted(choose, 1, jnp.ones((17, 17))) == 2 * 17**3


SHARDED = """HloModule step, entry_computation_layout={(f32[3,4]{1,0})->f32[6,4]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[3,4])) -> (s32[], f32[3,4]) {
  %state = (s32[], f32[3,4]{1,0}) parameter(0)
  %x = f32[3,4]{1,0} get-tuple-element(%state), index=1
  %i = s32[] get-tuple-element(%state), index=0
  %reduced = f32[3,4]{1,0} all-reduce(%x), channel_id=1, replica_groups=[1,2]<=[2], to_apply=%add
  ROOT %next = (s32[], f32[3,4]{1,0}) tuple(%i, %reduced)
}

%condition (state: (s32[], f32[3,4])) -> pred[] {
  %state = (s32[], f32[3,4]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (p: f32[3,4]) -> f32[6,4] {
  %p = f32[3,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[3,4]{1,0}) tuple(%zero, %p)
  %loop = (s32[], f32[3,4]{1,0}) while(%start), condition=%condition, body=%body, TURNS
  %done = f32[3,4]{1,0} get-tuple-element(%loop), index=1
  %half = bf16[3,4]{1,0} convert(%done)
  ROOT %all = bf16[6,4]{1,0} all-gather(%half), channel_id=2, replica_groups=[1,2]<=[2], dimensions={0}
}
"""


@pytest.mark.parametrize(('kind', 'size'), [('all-reduce', 5 * 12 * 4), ('all-gather', 24 * 2)])
def test_collectives_count_what_a_device_gets(kind, size):
  assert costs(SHARDED.replace('TURNS', 'backend_config={"known_trip_count":{"n":"5"}}')).collective_bytes[kind] == size
