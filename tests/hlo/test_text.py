"""HLO text: every syntax in use, exact errors, and damaged text."""

import random
import re

import pytest

from tests.helpers import timing
from tpugraphs_rank import errors
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import text as hlo_text

from . import printing

# Everything that the printer of current XLA writes, in one small module.
SMALL = r'''
// A comment before the module.
HloModule jit_f.1, is_scheduled=true, entry_computation_layout={(f32[4,3]{1,0}, /*index=1*/(s32[],
f32[2]{0}))->f32[4]{0}}, input_output_alias={ {0}: (0, {}, may-alias) }, num_partitions=2

FileNames
1 "a/b.py"

FunctionNames
1 "f{"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=9 end_column=20}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%region_0.1 (a.2: f32[], b: f32[]) -> f32[] {
  %a.2 = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.3 = f32[] add(f32[] %a.2, f32[] %b), metadata={op_name="a \" } {" stack_frame_id=1}
}

%body (t: (s32[], f32[4,3])) -> (s32[], f32[4,3]) {
  ROOT %t = (s32[], f32[4,3]{1,0}) parameter(0)
}

%cond (u: (s32[], f32[4,3])) -> pred[] {
  %u = (s32[], f32[4,3]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}, execution_thread="main"

ENTRY %main.5 (Arg_0.1: f32[4,3]) -> (f32[4], f32[<=4]) {
  %Arg_0.1 = f32[4,3]{1,0:T(8,128)(2,1)S(1)} parameter(0), sharding={devices=[2,1]<=[2]}
  %unused = bf16[2,2]{0,1} parameter(1)
  %k = f32[2,2]{1,0} constant({ { 1, 2 }, /*i0=1*/ { -inf, nan } })
  %z = f32[] constant(0)
  %n = s32[] constant(7)
  %init = (s32[], f32[4,3]{1,0}) tuple(%n, %Arg_0.1)
  %w = (s32[], f32[4,3]{1,0}) while(%init), condition=%cond, body=%body
  %g = f32[4,3]{1,0} get-tuple-element((s32[], /*index=1*/f32[4,3]{1,0}) %w), index=1
  %r = f32[4]{0} reduce(%g, %z), dimensions={1}, to_apply=%region_0.1, backend_config={"a":["}"]}
  %s = f32[<=4]{0} slice(%r), slice={[0:4:2]}, control-predecessors={%k}
  ROOT %out = (f32[4]{0}, f32[<=4]{0}) tuple(%r, /*index=1*/%s)
}
'''


def _computation(module, name):
  [computation] = [c for c in module.computations if c.name == name]
  return computation, {i.name: i for i in computation.instructions}


def test_current_syntax():
  module = hlo_text.parse(SMALL, "x")
  assert module.name == "jit_f.1"
  assert [c.name for c in module.computations] == ["region_0.1", "body", "cond", "main.5"]
  assert module.entry_computation_name == "main.5"
  assert module.entry_computation_id == module.computations[3].id
  main, named = _computation(module, "main.5")
  assert named["Arg_0.1"].shape == hlo_pb2.ShapeProto(
      element_type=hlo_pb2.F32, dimensions=[4, 3],
      layout=hlo_pb2.LayoutProto(minor_to_major=[1, 0]))
  assert named["unused"].parameter_number == 1
  assert list(named["unused"].shape.layout.minor_to_major) == [0, 1]
  assert named["g"].tuple_index == 1
  assert list(named["r"].dimensions) == [1]
  assert named["s"].slice_dimensions[0] == hlo_pb2.HloInstructionProto.SliceDimensions(
      limit=4, stride=2)
  assert list(named["s"].shape.dimensions) == [4]
  assert main.root_id == named["out"].id
  assert list(named["out"].operand_ids) == [named["r"].id, named["s"].id]
  numbers = {c.name: c.id for c in module.computations}
  assert list(named["w"].called_computation_ids) == [numbers["cond"], numbers["body"]]
  ids = [i.id for c in module.computations for i in c.instructions]
  assert len(set(ids) | set(numbers.values())) == len(ids) + 4


def test_a_schedule_becomes_post_order():
  main, _ = _computation(hlo_text.parse(SMALL, "x"), "main.5")
  # By hand: `unused` and `k`, which no instruction has as an operand, come first, in the order of
  # the text; then the operands of `out`, from left to right, each after its own.
  assert [i.name for i in main.instructions] == [
      "unused", "k", "n", "Arg_0.1", "init", "w", "g", "z", "r", "s", "out"]
  # A control predecessor comes before the operands.
  module = hlo_text.parse("""HloModule m, is_scheduled=true
ENTRY e {
  a = f32[] parameter(0)
  b = f32[] negate(a)
  c = f32[] cosine(a)
  d = f32[] add(b, c)
  ROOT f = f32[] sine(b), control-predecessors={d}
}""", "x")
  assert [i.name for i in module.computations[0].instructions] == ["a", "b", "c", "d", "f"]


def _one(line, before=""):
  """The instruction `x` of a program that has an instruction `p` of shape f32[8,8]."""
  module = hlo_text.parse(
      f"HloModule m\n{before}ENTRY e {{\n  p = f32[8,8] parameter(0)\n  ROOT {line}\n}}", "x.txt")
  return module.computations[-1].instructions[-1]


def test_attributes():
  x = _one("x = f32[8,8] convolution(p, p), window={size=3x1 stride=2x1 pad=0_1x-1_2 "
           "lhs_dilate=1x2 rhs_dilate=3x1 rhs_reversal=1x0}, dim_labels=b0f1_1io0->01bf, "
           "feature_group_count=4, batch_group_count=2")
  keys = ("size", "stride", "padding_low", "padding_high", "base_dilation", "window_dilation",
          "window_reversal")
  assert [[getattr(d, key) for key in keys] for d in x.window.dimensions] == [
      [3, 2, 0, 1, 1, 3, True], [1, 1, -1, 2, 2, 1, False]]
  c = x.convolution_dimension_numbers
  assert (c.input_batch_dimension, c.input_feature_dimension) == (0, 2)
  assert list(c.input_spatial_dimensions) == [1, 3]
  assert (c.kernel_input_feature_dimension, c.kernel_output_feature_dimension) == (1, 2)
  assert list(c.kernel_spatial_dimensions) == [3, 0]
  assert (c.output_batch_dimension, c.output_feature_dimension) == (2, 3)
  assert list(c.output_spatial_dimensions) == [0, 1]
  assert (x.feature_group_count, x.batch_group_count) == (4, 2)
  x = _one("x = f32[8,8] convolution(p, p), dim_labels=bf_io->bf")
  assert (x.feature_group_count, x.batch_group_count, x.HasField("window")) == (1, 1, True)

  d = _one("x = f32[8] dot(p, p), lhs_batch_dims={0}, lhs_contracting_dims={1}, "
           "rhs_batch_dims={1}, rhs_contracting_dims={0}, algorithm=dot_bf16_bf16_f32, "
           "operand_precision={highest,highest}").dot_dimension_numbers
  assert [list(n) for n in (d.lhs_batch_dimensions, d.lhs_contracting_dimensions,
                            d.rhs_batch_dimensions, d.rhs_contracting_dimensions)] == [
      [0], [1], [1], [0]]
  pads = _one("x = f32[9] pad(p, p), padding=0_1_0x-2_3_4").padding_config.dimensions
  assert [(p.edge_padding_low, p.edge_padding_high, p.interior_padding) for p in pads] == [
      (0, 1, 0), (-2, 3, 4)]
  assert list(_one("x = f32[2,2] dynamic-slice(p, p, p), dynamic_slice_sizes={2,2}"
                   ).dynamic_slice_sizes) == [2, 2]
  # The slice sizes of a gather belong to another field.
  x = _one("x = f32[2,2] gather(p, p), offset_dims={1}, collapsed_slice_dims={0}, "
           "start_index_map={0}, index_vector_dim=1, slice_sizes={1,2}")
  assert not x.dynamic_slice_sizes and not x.dimensions
  assert list(_one("x = s32[8,8] iota(), iota_dimension=1").dimensions) == [1]
  assert list(_one("x = f32[8,8]{0,1} transpose(p), dimensions={1,0}").dimensions) == [1, 0]
  region = "r {\n  a = f32[] parameter(0)\n}\n"
  x = _one("x = f32[8,8] sort(p), dimensions={1}, is_stable=true, to_apply=r", region)
  assert x.is_stable and list(x.dimensions) == [1] and len(x.called_computation_ids) == 1


@pytest.mark.parametrize("attribute", [
    "calls=%r", "to_apply=r", "select=%r, scatter=%r", "condition=r, body=%s",
    "branch_computations={%r, %s}", "true_computation=%r, false_computation=%s",
    "called_computations={r}"])
def test_called_computations(attribute):
  region = ("%r {\n  a = f32[] parameter(0)\n}\n"
            "%s (b: f32[]) -> f32[] {\n  b = f32[] parameter(0)\n}\n")
  called = _one(f"x = f32[] something(p), {attribute}", region).called_computation_ids
  assert list(called) == [{"r": 1, "s": 2}[name] for name in re.findall(r"\b[rs]\b", attribute)]


def test_shapes():
  shape = _one("x = ((f32[2]{0}, (s4[], /*index=1*/token[])), f8e4m3b11fnuz[?,<=5]{0,1:T(2,128)}, "
               "opaque[], ()) something(p)").shape
  inner, array, opaque, empty = shape.tuple_shapes
  assert [s.element_type for s in (inner, array, opaque, empty)] == [
      hlo_pb2.TUPLE, hlo_pb2.F8E4M3B11FNUZ, hlo_pb2.OPAQUE_TYPE, hlo_pb2.TUPLE]
  assert [s.element_type for s in inner.tuple_shapes[1].tuple_shapes] == [
      hlo_pb2.S4, hlo_pb2.TOKEN]
  assert list(array.dimensions) == [-2**63, 5]
  assert list(array.layout.minor_to_major) == [0, 1]
  # XLA's default layout where there is none.
  assert list(_one("x = f32[2,3,4] something(p)").shape.layout.minor_to_major) == [2, 1, 0]
  # Newer element types have XLA's numbers.
  assert _one("x = f4e2m1fn[2] something(p)").shape.element_type == 32


def test_asynchronous_operations_that_xla_prints_without_their_computation():
  module = hlo_text.parse('''HloModule m
ENTRY e {
  p = f32[8,8]{1,0} parameter(0)
  q = s32[] parameter(1)
  s = ((f32[8,8]{1,0}, s32[]), f32[2,2]{1,0}, u32[]) dynamic-slice-start(p, q),
    dynamic_slice_sizes={2,2}
  u = ((f32[8,8]{1,0}, s32[]), f32[2,2]{1,0}, u32[]) dynamic-slice-update(s)
  ROOT d = f32[2,2]{1,0} dynamic-slice-done(u)
}''', "x")
  wrapped, main = module.computations
  assert [i.opcode for i in main.instructions] == [
      "parameter", "parameter", "async-start", "async-update", "async-done"]
  assert [list(i.called_computation_ids) for i in main.instructions[2:]] == [[wrapped.id], [], []]
  a, b, op = wrapped.instructions
  assert (a.shape, b.shape) == tuple(i.shape for i in main.instructions[:2])
  assert (op.opcode, list(op.operand_ids), list(op.dynamic_slice_sizes)) == (
      "dynamic-slice", [a.id, b.id], [2, 2])
  assert list(op.shape.dimensions) == [2, 2] and wrapped.root_id == op.id
  assert not main.instructions[2].dynamic_slice_sizes
  # The value of an attribute may contain a space.
  assert _one("x = f32[8] all-reduce(p), replica_groups=mesh['a'=2,'b'=2], device_ids=([4]) {'a'}, "
              "to_apply=r, channel_id=1", "r {\n  a = f32[] parameter(0)\n}\n"
              ).called_computation_ids == [1]
  # These are operations of their own.
  assert _one("x = f32[8,8] all-reduce-start(p), replica_groups=[2,2]<=[4]T(1,0)"
              ).opcode == "all-reduce-start"


@pytest.mark.parametrize("line,where,message", [
    ("x = f32[8,8] add(p, q)", 4, "computation 'e' has no instruction 'q'"),
    ("x = f32[8,8] add(x, p)", 4, "instruction 'x' needs its own result"),
    ("p = f32[8,8] add(p, p)", 4, "a second instruction of 'e' has the name 'p'"),
    ("x = f99[8] add(p, p)", 4, "unknown element type 'f99'"),
    ("x = f32[8,1_0] add(p, p)", 4, "damaged dimensions"),
    ("x = f32[8,9223372036854775808] add(p, p)", 4, "damaged dimensions"),
    ("x = f32[8,8]{0} add(p, p)", 4, "a layout of 1 axes for a shape of 2"),
    ("x = add(p, p)", 4, r"expected a shape such as f32\[2,3\]"),
    ("x = f32[8] add(p p)", 4, "expected ',' or '\\)' after an operand"),
    ("x = f32[8] add(f32[] constant(0), p)", 4, "expected the name of an operand of 'x'"),
    ("x = f32[8] add(negate(p), p)", 4, "expected the name of an operand"),
    ("x = f32[8] reduce(p, p), to_apply=%r", 4, "the module has no computation 'r'"),
    ("x = f32[8] reduce(p, p), dimensions={a}", 4, "attribute dimensions of 'x' is '{a}'"),
    ("x = f32[8] call(p), to_apply={ y = f32[] parameter(0) }", 4, "attribute to_apply of 'x'"),
    ("x = f32[8] pad(p, p), padding=1_2_3_4", 4, "expected padding such as"),
    ("x = f32[8] convolution(p, p), window={size=3x3 pad=1_1}, dim_labels=b0f_0io->b0f", 4,
     "expected a window such as"),
    ("x = f32[8] convolution(p, p), dim_labels=b0f_0io->b1f", 4, "the same spatial axes"),
    ("x = f32[8] convolution(p, p), dim_labels=bbf_0io->b0f", 4, "attribute dim_labels"),
    ("x = f32[8] slice(p), slice={[0:8:2], 1:2}}", 5, "expected a computation"),
    ("x = f32[8] slice(p), slice={[0-8]}", 4, "expected ranges such as"),
    ("x = f32[8] add(p, p), metadata={op_name=\"", 4, "the text is cut off"),
    ("x = f32[8] add(p, p), metadata={[}]", 4, "closes the bracket"),
    ("x = f32[8] add(p, p), kind=", 5, "expected a value after '='|closes|expected an"),
    ("x = " + "(" * 40 + ")" * 40 + " add(p, p)", 4, "tuples more than 32 deep"),
    ("x = f32[8] parameter(-1)", 4, "expected the number of parameter 'x'"),
])
def test_errors_name_line_and_cause(line, where, message):
  message = f"(?s)x.txt: line {where}, column .*{message}.*dump the program again"
  with pytest.raises(errors.DataError, match=message):
    _one(line)


@pytest.mark.parametrize("text,message", [
    ("HloModule m", "expected at least one computation"),
    ("HloModule m\n\nENTRY e {", "the end of the text"),
    (SMALL[:SMALL.index("ENTRY")], "expected the computation that is marked as ENTRY; the text is"),
    ("HloModule m\nENTRY e {\n}", "line 2, column 7.*computation 'e' has no instructions"),
    ("HloModule m\ne {\n p = f32[] parameter(0)\n}\ne {\n p = f32[] parameter(0)\n}",
     "line 5.*a second computation has the name 'e'"),
    ("HloModule m\nENTRY a {\n p = f32[] parameter(0)\n}\nENTRY e {\n p = f32[] parameter(0)\n}",
     "a second computation is marked as ENTRY"),
    ("HloModule m\nENTRY a {\n ROOT p = f32[] parameter(0)\n ROOT q = f32[] parameter(1)\n}",
     "line 4.*marked as ROOT"),
])
def test_errors_of_the_whole_text(text, message):
  with pytest.raises(errors.DataError, match=f"(?s){message}"):
    hlo_text.parse(text, "x")


def test_the_last_computation_is_the_entry_and_the_last_instruction_the_root_by_default():
  module = hlo_text.parse(
      "HloModule m\na {\n p = f32[] parameter(0)\n}\nb {\n p = f32[] parameter(0)\n"
      " q = f32[] negate(p)\n}", "x")
  assert module.entry_computation_name == "b"
  assert module.computations[1].root_id == module.computations[1].instructions[1].id


def test_computations_without_a_header():
  body = SMALL[SMALL.index("%region_0.1"):]
  module = hlo_text.parse(body, "x")
  assert module.name == ""
  module.name = "jit_f.1"
  module.device_assignment.replica_count, module.device_assignment.computation_count = 1, 2
  assert module == hlo_text.parse(SMALL, "x")


def test_damaged_text_is_a_typed_error_or_another_program():
  texts = [SMALL] + [
      printing.module_text(hlo_text.parse(SMALL, "x"), style) for style in printing.STYLES]
  generator = random.Random(0)
  refused = 0
  for _ in range(600):
    text = generator.choice(texts)
    for _ in range(generator.randint(1, 3)):
      place = generator.randrange(len(text))
      match generator.randrange(4):
        case 0:
          text = text[:place] + text[place + generator.randint(1, 6):]
        case 1:
          text = text[:place] + generator.choice("(){}[]\"'/*,=% \n<=?:0x_-") + text[place:]
        case 2:
          text = text[:place] + str(generator.choice([2**63, -1, 10**25, "1_0"])) + text[place:]
        case 3:
          text = text[:max(place, 10)]
    with timing.takes_at_most(2):
      try:
        module = hlo_text.parse(text, "x.txt")
        graph.graph_arrays(module)
      except errors.DataError:
        refused += 1
  assert 100 < refused < 600


def test_a_text_with_too_many_instructions(monkeypatch):
  monkeypatch.setattr(limits, "INSTRUCTIONS", 100)
  text = "HloModule m\nENTRY e {\n" + "".join(f" x{i} = f32[] constant(0)\n" for i in range(500))
  # Before the missing end is reached.
  with pytest.raises(errors.LimitError, match="x: the number of instructions is 101; the limit is"):
    hlo_text.parse(text, "x")


def test_time_is_proportional_to_the_size():
  deep = "HloModule m, a=" + "({[" * 200_000
  wide = ("HloModule m\nENTRY e {\n c = f32[9]{0} constant({" + "{1,2}," * 200_000 + "})\n"
          + "".join(f" x{i} = f32[8] add(c, c), b={{{'{1},' * 20}}}\n" for i in range(5_000)) + "}")
  with timing.takes_at_most(10):
    with pytest.raises(errors.DataError, match="cut off"):
      hlo_text.parse(deep, "x")
    assert len(hlo_text.parse(wide, "x").computations[0].instructions) == 5_001


def test_what_traces_need():
  groups = "x = f32[8,8] all-reduce(p), to_apply=add, replica_groups="
  before = """add {
    a = f32[] parameter(0)
    b = f32[] parameter(1)
    ROOT c = f32[] add(a, b)
  }
  """

  def read(text):
    return _one(groups + text, before)

  x = read("{{0,2},{1,3}}, channel_id=7, use_global_device_ids=true")
  assert [list(group.replica_ids) for group in x.replica_groups] == [[0, 2], [1, 3]]
  assert (x.channel_id, x.use_global_device_ids) == (7, True)
  assert not read("{}").replica_groups
  short = read("[2,4]<=[4,2]T(1,0)").iota_collective_device_list
  assert (short.num_replica_groups, short.num_devices_per_group) == (2, 4)
  assert (list(short.iota_reshape_dims), list(short.iota_transpose_perm)) == ([4, 2], [1, 0])
  mesh = read("mesh['a'=2,'b'=4] {'b':(2)2}").mesh_axes_replica_group_list
  assert [(axis.name, axis.size) for axis in mesh.mesh.axes] == [("a", 2), ("b", 4)]
  assert [(axis.mesh_axis_index, axis.sub_axis_info.pre_size, axis.sub_axis_info.size)
          for axis in mesh.axes] == [(1, 2, 2)]
  assert read("@mesh {'b'}").iota_collective_device_list.num_replica_groups == -1

  x = _one("x = f32[8,8] collective-permute(p), source_target_pairs={{0,1},{1,0}}")
  assert [(pair.source, pair.target) for pair in x.source_target_pairs] == [(0, 1), (1, 0)]
  x = _one('x = f32[8,8] custom-call(p), custom_call_target="__cublas$gemm", '
           'backend_config={"a":{"n":"5"}}')
  assert (x.custom_call_target, x.backend_config) == ("__cublas$gemm", b'{"a":{"n":"5"}}')
  assert _one(r'x = f32[8,8] copy(p), backend_config="{\"a\":1}"').backend_config == b'{"a":1}'
  assert _one("x = pred[] compare(p, p), direction=LT").comparison_direction == "LT"
  assert list(_one("x = s32[] constant(-5)").literal.s32s) == [-5]
  assert not _one("x = f32[] constant(5)").literal.ByteSize()
  x = _one("x = (f32[8,8], u32[], token[]) send(p, p), channel_id=1, frontend_attributes={"
           '_xla_send_recv_source_target_pairs="{{0,1},{1,2}}",k="v"}')
  assert [(entry.key, entry.value) for entry in x.frontend_attributes.map] == [
      ("_xla_send_recv_source_target_pairs", "{{0,1},{1,2}}")]
  module = hlo_text.parse("HloModule m, replica_count=2, num_partitions=4\n"
                          "ENTRY e {\n  ROOT x = f32[] parameter(0)\n}", "x.txt")
  assert (module.device_assignment.replica_count, module.device_assignment.computation_count) == (
      2, 4)
