"""Element types of graphs, and those that training never saw."""

import dataclasses

import numpy as np

from tests.candidates import small_programs
from tpugraphs_rank.data import element_types
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import hlo_pb2


def _graph(*types):
  module, main = small_programs.program()
  for number, element_type in enumerate(types):
    small_programs.add(main, "parameter", [4], parameter_number=number)
    main.instructions[-1].shape.element_type = element_type
  return graphs.graph_from_arrays("g", hlo_graph.graph_arrays(module))


def test_types_without_a_column_have_names():
  module, main = small_programs.program()
  for element_type in (hlo_pb2.F32, hlo_pb2.F8E4M3FN, hlo_pb2.S4, hlo_pb2.TOKEN,
                       hlo_pb2.OPAQUE_TYPE):
    small_programs.add(main, "parameter", [4])
    main.instructions[-1].shape.element_type = element_type
  assert element_types.without_column(module) == ("f8e4m3fn", "s4")


def test_types_of_a_graph():
  assert element_types.of(_graph(hlo_pb2.F32, hlo_pb2.BF16, hlo_pb2.F32)) == ("f32", "bf16")
  assert element_types.of(_graph(hlo_pb2.S32, hlo_pb2.F8E4M3FN)) == ("s32", element_types.OTHER)
  assert element_types.of(_graph(hlo_pb2.TUPLE, hlo_pb2.TOKEN, hlo_pb2.PRED)) == ("pred",)
  both = element_types.of_all([_graph(hlo_pb2.F32), _graph(hlo_pb2.S4, hlo_pb2.BF16)])
  assert both == sorted(["bf16", "f32", element_types.OTHER])


def _normalizer(*training):
  return normalize.Normalizer.fit(list(training))


def test_types_that_training_never_saw():
  training = [_graph(hlo_pb2.F32, hlo_pb2.S32)]
  about = {"element_types": element_types.of_all(training)}
  normalizer = _normalizer(*training)
  for stored in (about, {}):  # A run of an older version stores no types.
    assert element_types.unseen(stored, normalizer, _graph(hlo_pb2.F32)) == ()
    assert element_types.unseen(stored, normalizer, _graph(hlo_pb2.F32, hlo_pb2.F16)) == ("f16",)
    assert element_types.unseen(stored, normalizer, _graph(hlo_pb2.F8E5M2)) == (
        element_types.OTHER,)


def test_an_older_run_with_one_type_says_nothing():
  normalizer = _normalizer(_graph(hlo_pb2.F32))
  assert element_types.seen({}, normalizer) is None
  assert element_types.unseen({}, normalizer, _graph(hlo_pb2.F16)) == ()
  empty = dataclasses.replace(
      normalizer, nodes=normalize.Scaling(np.zeros(0, np.int64), np.zeros(0), np.zeros(0)))
  assert element_types.seen({}, empty) is None
