"""The order of computations: that of XLA's text, for protobufs of any version."""

import pytest

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import printed_order
from tpugraphs_rank.hlo import reading

from . import modules


def _module(*computations):
  """Computations (id, [(instruction id, opcode, called ids)]); the last instruction is the root."""
  module = hlo_pb2.HloModuleProto(name="m")
  for number, instructions in computations:
    computation = module.computations.add(name=f"c{number}", id=number)
    for key, opcode, called in instructions:
      computation.instructions.add(
          name=f"i{key}", id=key, opcode=opcode, called_computation_ids=called)
      computation.root_id = key
  return module


def _order(module, **options):
  before = {c.id: c.SerializeToString() for c in module.computations}
  printed_order.sort_computations(module, **options)
  assert {c.id: c.SerializeToString() for c in module.computations} == before
  return [c.id for c in module.computations]


LEAF = [(1, "parameter", [])]


def test_depth_first_in_the_order_of_ids():
  # 9 calls 4 first (instruction 10) although it is listed second; 4 calls 2; 7 is called twice.
  module = _module((7, LEAF), (2, LEAF), (3, LEAF), (4, [(5, "call", [2, 7])]),
                   (9, [(11, "fusion", [3]), (10, "while", [4]), (12, "fusion", [7])]))
  assert _order(module) == [2, 7, 4, 3, 9]
  assert _order(module) == [2, 7, 4, 3, 9]
  # The order of a text is kept.
  module = _module((7, LEAF), (2, LEAF), (9, [(11, "call", [2]), (12, "call", [7])]))
  assert _order(module, as_printed=True) == [7, 2, 9]


def test_computations_that_nothing_calls_are_in_the_order_of_their_ids():
  assert _order(_module((8, LEAF), (5, LEAF), (6, [(1, "call", [5])]), (2, LEAF))) == [2, 5, 6, 8]


@pytest.mark.parametrize("as_printed", [False, True])
def test_asynchronous_operations_come_directly_before_their_caller(as_printed):
  operation = [(1, "parameter", []), (2, "reduce-scatter", [3])]
  main = [(10, "async-start", [5]), (11, "fusion", [4]), (12, "async-start", [6])]
  module = _module((3, LEAF), (5, operation), (4, LEAF), (6, [(1, "copy", [])]), (9, main))
  assert _order(module, as_printed=as_printed) == [3, 4, 5, 6, 9]
  # XLA prints a computation of several operations, and one that is called in another way too.
  several = [(1, "parameter", []), (2, "add", []), (3, "copy", [])]
  module = _module((5, several), (4, LEAF), (6, [(1, "copy", [])]), (9, [
      (10, "async-start", [5]), (11, "fusion", [4]), (12, "async-start", [6]), (13, "call", [6])]))
  assert _order(module, as_printed=as_printed) == [5, 4, 6, 9]


@pytest.mark.parametrize("computations", [
    ((1, [(2, "call", [3])]), (3, [(4, "call", [1])])),  # A circle.
    ((1, [(2, "call", [1])]),),
    ((2, LEAF), (2, LEAF), (1, [(3, "call", [2])])),  # One id twice.
    ((2, [(3, "call", [7])]), (1, LEAF)),  # No such computation.
])
def test_damaged_programs_stay_as_they_are(computations):
  module = _module(*computations)
  before = module.SerializeToString()
  printed_order.sort_computations(module)
  assert module.SerializeToString() == before


def test_deep_calls_need_no_recursion():
  depth = 20_000
  module = _module(*[(i, [(1, "call", [i - 1] if i else [])]) for i in reversed(range(depth))])
  printed_order.sort_computations(module)
  assert [c.id for c in module.computations] == list(range(depth))


def test_measured_programs_keep_the_order_of_the_file():
  module = _module((2, LEAF), (1, LEAF), (3, [(4, "fusion", [1]), (5, "fusion", [2])]))
  module.entry_computation_name = "c3"
  plain = reading.parse_raw(module.SerializeToString()).modules[0].module
  assert [c.id for c in plain.computations] == [1, 2, 3]
  measured = modules.measured([modules.layout_run([[[0]]], is_default=True)], module, nodes=[0])
  raw = reading.parse_raw(measured.SerializeToString())
  assert [c.id for c in raw.modules[0].module.computations] == [2, 1, 3]
