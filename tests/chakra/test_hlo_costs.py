"""Operations and bytes of HLO instructions: by hand, by brute force, and by XLA itself."""

import json
import os
import subprocess

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import hlo_costs
from tpugraphs_rank.collect import environment
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import text as hlo_text

ADD = "add {\n a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT c = f32[] add(a, b)\n}\n"
GE = "ge {\n a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT c = pred[] compare(a, b)\n}\n"


def _cost(line: str, *parameters: str, before: str = "") -> hlo_costs.Cost:
  """The cost of the instruction `x`, whose operands p0, p1, ... have these shapes."""
  lines = [f"  p{number} = {shape} parameter({number})" for number, shape in enumerate(parameters)]
  text = "\n".join(["HloModule m", before + "ENTRY e {", *lines, f"  {line}", "}"])
  module = hlo_text.parse(text, "x.txt")
  instructions = module.computations[-1].instructions
  model = hlo_costs.CostModel(module, "x.txt")
  return model.cost(len(module.computations) - 1, next(i for i in instructions if i.name == "x"))


@pytest.mark.parametrize("shape, size, elements", [
    ("f32[2,3]", 24, 6), ("pred[5]", 5, 5), ("bf16[3]", 6, 3), ("s4[3]", 2, 3), ("c64[2]", 16, 2),
    ("c128[2]", 32, 2), ("f8e4m3fn[7]", 7, 7), ("u64[]", 8, 1), ("token[]", 0, 0),
    ("(f32[2], (s8[3], token[]))", 11, 5), ("f32[0,4]", 0, 0), ("f64[2]", 16, 2)])
def test_sizes_of_shapes(shape, size, elements):
  module = hlo_text.parse(f"ENTRY e {{\n  ROOT x = {shape} parameter(0)\n}}", "x")
  read = module.computations[0].instructions[0].shape
  assert (hlo_costs.size(read), hlo_costs.elements(read)) == (size, elements)


@pytest.mark.parametrize("line, parameters, flops, size", [
    # 2 * (8 * 4) * 16; all three arrays once.
    ("x = f32[8,4] dot(p0, p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
     ("f32[8,16]", "f32[16,4]"), 1024, 4 * (128 + 64 + 32)),
    ("x = f32[5,8,4] dot(p0, p1), lhs_batch_dims={0}, rhs_batch_dims={0}, "
     "lhs_contracting_dims={2}, rhs_contracting_dims={1}", ("f32[5,8,16]", "f32[5,16,4]"),
     5 * 1024, 5 * 4 * (128 + 64 + 32)),
    ("x = f32[2,3] add(p0, p0)", ("f32[2,3]",), 6, 3 * 24),
    ("x = f32[2,3] exponential(p0)", ("f32[2,3]",), 6, 2 * 24),
    ("x = bf16[2,3] convert(p0)", ("f32[2,3]",), 6, 24 + 12),
    ("x = f32[3] reduce(p0, p1), dimensions={0}, to_apply=add", ("f32[4,3]", "f32[]"), 9,
     48 + 4 + 12),
    # 2 x 2 windows: 3 additions each.
    ("x = f32[2,2] reduce-window(p0, p1), window={size=2x2 stride=2x2}, to_apply=add",
     ("f32[4,4]", "f32[]"), 12, 64 + 4 + 16),
    # 3 comparisons and one addition for each of 4 sources.
    ("x = f32[4,4] select-and-scatter(p0, p1, p2), window={size=2x2 stride=2x2}, select=ge, "
     "scatter=add", ("f32[4,4]", "f32[2,2]", "f32[]"), 4 * 3 + 4, 64 + 16 + 4 + 64),
    ("x = f32[100] sort(p0), dimensions={0}, to_apply=ge", ("f32[100]",), 700, 800),
    ("x = c64[16] fft(p0), fft_type=FFT, fft_length={16}", ("c64[16]",), 5 * 16 * 4, 256),
    ("x = f32[8,8] cholesky(p0)", ("f32[8,8]",), 8 * 64 // 3, 512),
    ("x = f32[8,3] triangular-solve(p0, p1)", ("f32[8,8]", "f32[8,3]"), 8 * 24, 256 + 96 + 96),
    ("x = f32[4] map(p0, p0), dimensions={0}, to_apply=add", ("f32[4]",), 4, 48),
    # In place: reads the updates, the indices and what it adds to, and writes as much.
    ("x = f32[100,4] scatter(p0, p1, p2), to_apply=add", ("f32[100,4]", "s32[3,1]", "f32[3,4]"),
     12, 3 * 48 + 12),
])
def test_arithmetic(line, parameters, flops, size):
  cost = _cost(line, *parameters, before=ADD + GE)
  assert (cost.flops, cost.size) == (flops, size)
  assert cost.operations == flops


@pytest.mark.parametrize("line, parameters, moved, size", [
    ("x = f32[8,16] broadcast(p0), dimensions={1}", ("f32[16]",), 128, 64 + 512),
    ("x = f32[16,8] transpose(p0), dimensions={1,0}", ("f32[8,16]",), 128, 1024),
    ("x = f32[2,16] slice(p0), slice={[0:2], [0:16]}", ("f32[8,16]",), 32, 256),
    ("x = f32[2,16] dynamic-slice(p0, p1, p1), dynamic_slice_sizes={2,16}",
     ("f32[800,16]", "s32[]"), 32, 256 + 8),
    ("x = f32[800,16] dynamic-update-slice(p0, p1, p2, p2)", ("f32[800,16]", "f32[2,16]", "s32[]"),
     32, 256 + 8),
    ("x = f32[3,16] gather(p0, p1), slice_sizes={1,16}", ("f32[800,16]", "s32[3,1]"), 48,
     2 * 192 + 12),
    ("x = s32[7] iota(), iota_dimension=0", (), 7, 28),
    ("x = f32[10] pad(p0, p1), padding=1_1", ("f32[8]", "f32[]"), 10, 32 + 4 + 40),
    ("x = (f32[8], f32[8], u32[]) copy-start(p0)", ("f32[8]",), 8, 64),
])
def test_moving_data_counts_an_operation_an_element(line, parameters, moved, size):
  cost = _cost(line, *parameters)
  assert (cost.flops, cost.moved, cost.size) == (0, moved, size)
  assert cost.operations == moved


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4),
       st.integers(1, 4), st.integers(1, 4), st.integers(-3, 6))
def test_convolution_counts_products_that_exist(inputs, outputs, kernel, stride, base, spread, pad):
  cost = _cost(
      f"x = f32[2,{outputs},3] convolution(p0, p1), dim_labels=b0f_0io->b0f, window={{"
      f"size={kernel} stride={stride} pad={pad}_0 lhs_dilate={base} rhs_dilate={spread}}}",
      f"f32[2,{inputs},5]", f"f32[{kernel},5,3]")
  products = sum(
      0 <= position <= (inputs - 1) * base and position % base == 0
      for output in range(outputs) for tap in range(kernel)
      for position in [output * stride + tap * spread - pad])
  assert cost.flops == 2 * 2 * 5 * 3 * products


def test_grouped_convolution():
  # 4 input features in 2 groups: 2 products of each of 8 outputs.
  cost = _cost("x = f32[1,6,8] convolution(p0, p1), dim_labels=b0f_0io->b0f, window={size=1}, "
               "feature_group_count=2", "f32[1,6,4]", "f32[1,2,8]")
  assert cost.flops == 2 * 6 * 2 * 8


def test_custom_calls_of_known_libraries():
  config = ('{"gemm_backend_config":{"beta":0,"dot_dimension_numbers":'
            '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}')
  cost = _cost('x = (f32[8,4], s8[1000]) custom-call(p0, p1), custom_call_target="__cublas$gemm", '
               f"backend_config={config}", "f32[8,16]", "f32[16,4]")
  assert (cost.flops, cost.size) == (1024, 896)  # Without the workspace.
  cost = _cost('x = (f32[1,6,8], u8[64]) custom-call(p0, p1), window={size=3 pad=1_1}, '
               'dim_labels=b0f_0io->b0f, custom_call_target="__cudnn$convForward"',
               "f32[1,6,4]", "f32[3,4,8]")
  assert cost.flops == 2 * (6 * 8) * (3 * 4)
  cost = _cost('x = f32[7] custom-call(p0), custom_call_target="mine"', "f32[7]")
  assert (cost.flops, cost.operations, cost.size) == (0, 7, 56)


FUSED = """fused {
  big = f32[100,16] parameter(0)
  at = s32[] parameter(1)
  view = f32[1600] bitcast(big)
  zero = s32[] constant(0)
  row = f32[1,16] dynamic-slice(big, at, zero), dynamic_slice_sizes={1,16}
  part = f32[8] slice(view), slice={[0:8]}
  two = f32[1,16] add(row, row)
  ROOT out = f32[100,16] dynamic-update-slice(big, two, at, zero)
}
"""


def test_a_fusion_reads_and_writes_what_its_instructions_do():
  cost = _cost("x = f32[100,16] fusion(p0, p1), kind=kLoop, calls=fused", "f32[100,16]", "s32[]",
               before=FUSED)
  # Reads a row of 64 bytes, a part of 32 and an index of 4; writes a row.
  assert (cost.flops, cost.size) == (16, 64 + 32 + 4 + 64)
  assert cost.moved == 16
  whole = FUSED.replace("add(row, row)", "add(row, row), metadata={}").replace(
      "slice(view), slice={[0:8]}", "negate(view)").replace("part = f32[8]", "part = f32[1600]")
  cost = _cost("x = f32[100,16] fusion(p0, p1), kind=kLoop, calls=fused", "f32[100,16]", "s32[]",
               before=whole)
  assert (cost.flops, cost.size) == (16 + 1600, 6400 + 4 + 64)


def test_impossible_shapes_are_errors():
  with pytest.raises(errors.LimitError, match="'x': its cost is 1.84e.19; .* 2\\^63"):
    _cost("x = f32[4294967295,4294967295] add(p0, p0)", "f32[4294967295,4294967295]")
  with pytest.raises(errors.DataError, match="'x': its operands do not fit 'dot'"):
    _cost("x = f32[8] dot(p0, p0), lhs_contracting_dims={7}, rhs_contracting_dims={0}", "f32[8]")
  with pytest.raises(errors.LimitError, match="window has"):
    _cost("x = f32[1,99999999,1] convolution(p0, p1), dim_labels=b0f_0io->b0f, window="
          "{size=99999999}", "f32[1,9,1]", "f32[99999999,1,1]")
  module = hlo_pb2.HloModuleProto()
  assert hlo_costs.CostModel(module, "x").computation_flops(3) == 0


_XLA = """
import json, sys
import jax
import jax.numpy as jnp
from jax import lax

def conv(x, k, **settings):
  return lax.conv_general_dilated(x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings)

x, k = jnp.ones((2, 9, 9, 4)), jnp.ones((3, 3, 4, 8))
a, b = jnp.ones((8, 16)), jnp.ones((16, 4))
window = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
cases = {
    "dot": (lambda a, b: a @ b, a, b),
    "batched dot": (lambda x: jnp.einsum("bijc,bikc->bijk", x, x), x),
    "conv": (lambda x, k: conv(x, k, window_strides=(1, 1), padding="SAME"), x, k),
    "strided": (lambda x, k: conv(x, k, window_strides=(2, 1), padding="SAME",
                                  rhs_dilation=(2, 1)), x, k),
    "grouped": (lambda x, k: conv(x, k, window_strides=(1, 1), padding="SAME",
                                  feature_group_count=2), x, jnp.ones((3, 3, 2, 8))),
    "dilated": (lambda x, k: conv(x, k, window_strides=(1, 1), padding=((1, 2), (0, 1)),
                                  lhs_dilation=(2, 3)), x, k),
    "conv gradient": (jax.grad(lambda k, x: conv(x, k, window_strides=(2, 2),
                                                 padding="SAME").sum()), k, x),
    "softmax": (lambda a: jnp.exp(a - a.max(1, keepdims=True)) / jnp.exp(a).sum(), a),
    "sum": (lambda a: a.sum(1), a),
    "pool": (window, x),
    "pool gradient": (jax.grad(lambda x: window(x).sum()), x),
    "sort": (lambda a: lax.sort(a, is_stable=False), a),
}
out = {}
for name, (function, *arguments) in cases.items():
  lowered = jax.jit(function).lower(*arguments)
  cost = lowered.cost_analysis()
  out[name] = [lowered.compiler_ir("hlo").as_hlo_text(),
               cost.get("flops", 0) + cost.get("transcendentals", 0), cost["bytes accessed"]]
json.dump(out, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(not environment.is_ready(), reason="the collector's environment does not exist")
def test_operations_and_bytes_are_those_of_xlas_own_cost_analysis():
  output = subprocess.run(
      [str(environment.python()), "-c", _XLA], check=True, capture_output=True, text=True,
      env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"}).stdout
  cases = json.loads(output)
  assert len(cases) == 12
  for name, (program, expected, size) in cases.items():
    module = hlo_text.parse(program, name)
    model = hlo_costs.CostModel(module, name)
    entry = module.computations[-1]
    assert model.computation_flops(entry.id) == expected, name
    costs = [model.cost(len(module.computations) - 1, instruction)
             for instruction in entry.instructions if instruction.opcode not in hlo_costs.FREE]
    # XLA counts a reshape as a copy.
    reshaped = sum(2 * hlo_costs.size(instruction.shape) for instruction in entry.instructions
                   if instruction.opcode == "reshape")
    assert sum(cost.size for cost in costs) + reshaped == size, name
