"""Requests in HLO programs, their parameters, and undeclared fields. Needs no JAX."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.candidates import small_programs
from tpugraphs_rank import errors
from tpugraphs_rank.collect.hlo import agreement
from tpugraphs_rank.collect.hlo import flat_parameters
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import matching
from tpugraphs_rank.collect.hlo import parameters
from tpugraphs_rank.collect.hlo import requests
from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import text as hlo_text
from tpugraphs_rank.hlo import tuning_pb2

_LOOP = """HloModule loop

add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT sum = f32[] add(a, b)
}

body {
  state = (s32[], f32[8,16]) parameter(0)
  step = s32[] get-tuple-element(state), index=0
  x = f32[8,16] get-tuple-element(state), index=1
  row = f32[1,16] dynamic-slice(x, step, step), dynamic_slice_sizes={1,16}
  turned = f32[16,8] reshape(x)
  product = f32[8,8] dot(x, turned), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  wide = f32[8,16] concatenate(product, product), dimensions={1}
  ROOT next = (s32[], f32[8,16]) tuple(step, wide)
}

condition {
  s = (s32[], f32[8,16]) parameter(0)
  n = s32[] get-tuple-element(s), index=0
  limit = s32[] constant(3)
  ROOT less = pred[] compare(n, limit), direction=LT
}

ENTRY main {
  first = s32[] parameter(0)
  x0 = f32[8,16] parameter(1)
  other = s32[4] parameter(2)
  start = (s32[], f32[8,16]) tuple(first, x0)
  loop = (s32[], f32[8,16]) while(start), condition=condition, body=body
  result = f32[8,16] get-tuple-element(loop), index=1
  zero = f32[] constant(0)
  ROOT total = f32[8] reduce(result, zero), dimensions={1}, to_apply=add
}
"""


def _loop() -> hlo_pb2.HloModuleProto:
  return hlo_text.parse(_LOOP, "loop")


def _instructions(module: hlo_pb2.HloModuleProto) -> list[hlo_pb2.HloInstructionProto]:
  return [instruction for computation in module.computations
          for instruction in computation.instructions]


@given(st.lists(st.tuples(st.integers(1, 500), st.one_of(
    st.integers(0, 2**63 - 1), st.binary(max_size=9)))))
def test_fields_are_written_as_they_are_read(listed) -> None:
  content = b"".join(wire.encoded(number, value) for number, value in listed)
  read = [(number, int.from_bytes(value, "little") if kind == wire.VARINT else value)
          for number, kind, value in wire.fields(content)]
  assert read == listed
  removed = {number for number, _ in listed[:2]}
  assert wire.without(content, removed) == b"".join(
      wire.encoded(number, value) for number, value in listed if number not in removed)


def test_a_cut_message_is_refused() -> None:
  with pytest.raises(errors.DataError, match="ends within a number"):
    list(wire.fields(b"\xff"))


def test_sites_are_in_loops_but_not_in_the_functions_of_reductions() -> None:
  module = _loop()
  assert [site.opcode for site in requests.open_sites(module)] == ["reshape", "dot"]
  reduction = next(computation for computation in module.computations
                   if computation.name == "add")
  small_programs.add(reduction, "dot", [2, 2])
  assert [site.opcode for site in requests.open_sites(module)] == ["reshape", "dot"]


def test_a_request_for_an_output_is_between_the_value_and_its_users() -> None:
  module = _loop()
  sites = requests.open_sites(module)
  # The product's output and kernel.
  configuration = (((), ()), ((0, 1), (), (1, 0)))
  changed = requests.with_requests(module, [site.node for site in sites], configuration)
  named = {instruction.name: instruction for instruction in _instructions(changed)}
  numbered = {instruction.id: instruction for instruction in
              next(computation for computation in changed.computations
                   if computation.name == "body").instructions}
  added = [instruction for instruction in _instructions(changed)
           if instruction.custom_call_target == requests.TARGET]
  assert len(added) == 2
  output = numbered[named["wide"].operand_ids[0]]
  assert output in added and list(output.shape.layout.minor_to_major) == [0, 1]
  assert list(output.operand_ids) == [named["product"].id]
  assert set(named["wide"].operand_ids) == {output.id}
  kernel = numbered[named["product"].operand_ids[1]]
  assert list(kernel.operand_ids) == [named["turned"].id]
  assert wire.undeclared(kernel, 56) == [1]
  with_layout = hlo_pb2.ShapeProto.FromString(wire.undeclared(kernel, 57)[0])
  assert list(with_layout.layout.minor_to_major) == [1, 0]
  # Operands come before their users, and nothing else changed.
  for computation in changed.computations:
    seen = set()
    for instruction in computation.instructions:
      assert set(instruction.operand_ids) <= seen
      seen.add(instruction.id)
  assert module == _loop()
  assert requests.with_requests(module, [site.node for site in sites],
                                configurations.default(sites)) == module


def test_a_request_for_a_root_becomes_the_root() -> None:
  module = small_programs.matmul(4, 8, 2, "product")
  site = requests.open_sites(module)[0]
  changed = requests.with_requests(module, [site.node], (((0, 1), (), ()),))
  root = changed.computations[0].root_id
  assert {instruction.id: instruction.custom_call_target for instruction in
          changed.computations[0].instructions}[root] == requests.TARGET


def test_short_layouts_are_completed_with_the_other_axes_in_order() -> None:
  assert requests.complete((1, 3), 4) == (1, 3, 2, 0)
  assert requests.complete((), 3) == (2, 1, 0)


@pytest.mark.parametrize(("configuration", "message"), [
    ((((0, 0), ()), ((), (), ())), r"layout \[0, 0\] is requested"),
    ((((), (), (0, 1)), ((), (), ())), "has 1 operands"),
])
def test_requests_that_do_not_fit_are_refused(configuration, message) -> None:
  module = _loop()
  nodes = [site.node for site in requests.open_sites(module)]
  with pytest.raises(errors.DataError, match=message):
    requests.with_requests(module, nodes, configuration)


def test_a_configured_instruction_must_take_requests() -> None:
  data = tuning_pb2.ModuleTuningData(module=_loop(), config_index_to_node=[0])
  with pytest.raises(errors.DataError, match="'a' .parameter. are configured"):
    folder_lib.sites_of(data, "f")
  data.config_index_to_node[0] = 99
  with pytest.raises(errors.DataError, match="instruction 99 is configured"):
    folder_lib.sites_of(data, "f")


def test_a_program_without_types_of_parameters_is_refused() -> None:
  with pytest.raises(errors.DataError, match="lacks parts that a compiler needs"):
    requests.for_one_device(_loop())


def test_a_program_that_waits_for_a_host_is_refused_by_name() -> None:
  module = _loop()
  module.MergeFromString(wire.encoded(4, b"\x08\x01"))
  requests.for_one_device(module)
  module.computations[-1].instructions[-1].opcode = "infeed"
  with pytest.raises(errors.DataError, match="'total' .infeed. needs something outside"):
    requests.for_one_device(module)


def test_a_program_that_draws_its_own_random_numbers_is_refused_by_name() -> None:
  module = _loop()
  module.MergeFromString(wire.encoded(4, b"\x08\x01"))
  module.computations[-1].instructions[-1].opcode = "rng"
  with pytest.raises(errors.DataError, match="'total' .rng. draws random numbers"):
    requests.for_one_device(module)


def test_placement_and_shardings_are_removed() -> None:
  module = _loop()
  module.MergeFromString(wire.encoded(4, b"\x08\x01") + wire.encoded(8, b"x"))
  instruction = module.computations[-1].instructions[1]
  instruction.MergeFromString(wire.encoded(40, b"\x08\x01"))
  single = requests.for_one_device(module)
  assert wire.undeclared(single, 4) and not wire.undeclared(single, 8)
  assert not wire.undeclared(single.computations[-1].instructions[1], 40)


def test_a_parameter_behind_an_index_stays_in_the_table() -> None:
  first, x, other = parameters.parameters(_loop())
  # The loop's counter is an index of 8 rows of one, and of 16 columns that a slice takes whole.
  assert (first.name, first.start, first.end) == ("first", 0, 1)
  assert (x.start, x.end) == (0, 0)
  assert (other.start, other.end) == (1, 5)
  rng = np.random.default_rng(0)
  assert parameters.draw(first, np.dtype(np.int32), rng) == 0
  drawn = parameters.draw(x, np.dtype(np.float32), rng, (0.5, 1.5))
  assert drawn.shape == (8, 16) and 0.5 <= drawn.min() and drawn.max() < 1.5


def test_a_gather_limits_the_indices_by_its_axes() -> None:
  module, computation = small_programs.program()
  table = small_programs.add(computation, "parameter", [1000, 64])
  computation.instructions[-1].parameter_number = 0
  ids = small_programs.add(computation, "parameter", [4])
  computation.instructions[-1].parameter_number = 1
  computation.instructions[-1].shape.element_type = hlo_pb2.S32
  small_programs.add(computation, "gather", [4, 64], [table, ids])
  packed = lambda number, values: wire.encoded(number, bytes(values))
  computation.instructions[-1].MergeFromString(
      wire.encoded(33, packed(3, [0])) + packed(34, [1, 64]))
  module.entry_computation_id = computation.id
  assert parameters.parameters(module)[1].end == 1000


def test_what_cannot_be_fed_is_refused_by_name() -> None:
  module = _loop()
  other = next(one for one in module.computations[-1].instructions if one.name == "other")
  other.shape.element_type = hlo_pb2.TOKEN
  with pytest.raises(errors.DataError, match="parameter 2 .'other'"):
    parameters.parameters(module)


def test_tuples_among_the_parameters_become_arrays() -> None:
  module = hlo_text.parse("""HloModule tuple_parameter
ENTRY main {
  p = (f32[16,32], (f32[32,8], s32[])) parameter(1)
  q = f32[2] parameter(0)
  a = f32[16,32] get-tuple-element(p), index=0
  ROOT r = f32[4,128] reshape(a)
}
""", "tuple")
  flat = flat_parameters.flatten(module)
  entry = flat.computations[-1]
  arrays = [(instruction.parameter_number, list(instruction.shape.dimensions))
            for instruction in entry.instructions if instruction.opcode == "parameter"]
  assert sorted(arrays) == [(0, [2]), (1, [16, 32]), (2, [32, 8]), (3, [])]
  named = {instruction.id: instruction for instruction in entry.instructions}
  get = next(instruction for instruction in entry.instructions if instruction.name == "a")
  assert named[get.operand_ids[0]].opcode == "tuple"
  assert len(wire.undeclared(flat, 4)) == len(wire.undeclared(entry, 4)) == 1
  assert flat_parameters.flatten(flat) is flat


def test_values_are_matched_whatever_their_names_order_and_functions() -> None:
  called = hlo_text.parse("""HloModule called
double {
  a = f32[8,16] parameter(0)
  ROOT b = f32[8,16] add(a, a)
}
ENTRY main {
  x = f32[8,16] parameter(0)
  y = f32[16,8] parameter(1)
  twice = f32[8,16] call(x), to_apply=double
  d = f32[8,8] dot(twice, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = f32[4,16] reshape(d)
}
""", "called")
  inlined = hlo_text.parse("""HloModule inlined
ENTRY main {
  second = f32[16,8] parameter(1)
  first = f32[8,16] parameter(0)
  sum = f32[8,16] add(first, first)
  other = f32[8,8] dot(first, second), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  product = f32[8,8] dot(sum, second), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  unused = f32[4,16] reshape(other)
  ROOT result = f32[4,16] reshape(product)
}
""", "inlined")
  names = [[instruction.name for instruction in _instructions(module)]
           for module in (called, inlined)]
  by_value = {value: names[1][node] for node, values in matching.values(inlined).items()
              for value in values}
  matched = {names[0][node]: {by_value.get(value) for value in values}
             for node, values in matching.values(called).items()}
  assert matched["d"] == {"product"} and matched["r"] == {"result"}
  assert matched["b"] == matched["twice"] == {"sum"}


@pytest.mark.parametrize(("result", "expected", "agrees"), [
    ([1.0, 2.0], [1.0, 2.0001], True), ([1.0, 2.0], [1.0, 2.001], False),
    ([np.inf, 1.0], [np.inf, 1.0], True), ([-np.inf, 1.0], [np.inf, 1.0], False),
    ([np.nan, 1.0], [np.nan, 1.0], True), ([np.nan, 1.0], [1.0, 1.0], False),
])
def test_numbers_agree_within_the_tolerance_of_their_type(result, expected, agrees) -> None:
  arrays = [[np.array(values, np.float32)] for values in (result, expected)]
  assert agreement.agree(*arrays) == agrees
  finite = bool(np.isfinite(arrays[0][0]).all())
  assert agreement.agree(*arrays, finite=True) == (agrees and finite)


def test_whole_numbers_agree_exactly_and_parts_of_complex_numbers_count() -> None:
  ones = [np.ones(3, np.int32)]
  assert agreement.agree(ones, ones) and not agreement.agree(ones, [np.array([1, 1, 2], np.int32)])
  assert not agreement.agree([np.array([1 + 1j])], [np.array([1 + 2j])])
  assert agreement.finite_share([np.array([1.0, np.nan]), np.ones(2, int)]) == 0.5
