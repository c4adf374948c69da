"""Graphs as traces: the round trip, costs, the zero-cost rule, and ranks that match."""

import json
import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tests.chakra import samples
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import costs
from tpugraphs_rank.chakra import decoding
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.synthesis.dags import dags

KEEP = exporting.Settings(zero_cost="keep")
SEND, RECV, COLL = node_kinds.COMM_SEND, node_kinds.COMM_RECV, node_kinds.COMM_COLL


def _dags(*several: traces.Trace, **options) -> dags.Dags:
  """A data set of traces: the ranks of one workload."""
  settings_ = graphs.Settings(**options)
  return graphs.to_dags([trace_graph.from_trace(trace, f"job.{rank}.et")
                         for rank, trace in enumerate(several)], settings_)


def _export(several: dags.Dags, **options) -> list[traces.Trace]:
  workload, = exporting.to_workloads(several, exporting.Settings(**options))
  return workload.traces


def _same(one: dags.Dags, other: dags.Dags) -> None:
  for name in ("node_off", "edge_off", "src", "dst", "x", "level", "wl"):
    assert np.array_equal(getattr(one, name), getattr(other, name)), name
  for words, others in zip(one.vocabularies, other.vocabularies, strict=True):
    assert words.tolist() == others.tolist()


def _again(several: dags.Dags, **options) -> dags.Dags:
  trace, = _export(several, zero_cost="keep")
  return _dags(trace, **options)


# ---- round trip ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(samples.acyclic(), st.integers(0, 4), st.booleans())
def test_import_export_import_is_the_identity(trace, per_octave, reduced):
  graph = trace_graph.from_trace(trace, "job.0.et", reduced=reduced)
  several = graphs.to_dags([graph], graphs.Settings(per_octave=per_octave))
  written, = _export(several, zero_cost="keep")
  again = trace_graph.from_trace(written, "job.0.et")
  assert again.ids.tolist() == list(range(len(graph.ids)))
  assert all(producer < consumer for consumer, producer in again.edges.tolist())
  _same(several, graphs.to_dags([again], graphs.Settings(per_octave=per_octave)))
  if per_octave:
    return
  # Nodes of equal levels keep their order, so the positions of both traces are known.
  ends = np.zeros([len(graph.ids)], np.int64)
  for consumer, producer in sorted(graph.edges.tolist(), key=lambda row: -graph.levels[row[0]]):
    ends[producer] = max(ends[producer], ends[consumer] + 1)
  order = np.lexsort((np.arange(len(ends)), -ends))
  position = np.argsort(order)
  for name in ("types", "device", "duration", "operations", "size", "collective"):
    assert getattr(again, name).tolist() == getattr(graph, name)[order].tolist(), name
  for name in ("operators", "group"):
    assert getattr(again, name) == tuple(getattr(graph, name)[index] for index in order), name
  assert sorted(position[graph.edges].tolist()) == sorted(again.edges.tolist())


@testdata.required
@pytest.mark.parametrize("per_octave", [0, 2])
def test_the_real_trace_survives(tmp_path: pathlib.Path, per_octave):
  import tarfile
  with tarfile.open(testdata.path("chakra/feeder_tests_trace.tar.gz")) as archive:
    member = next(item for item in archive.getmembers() if item.name.endswith(".et"))
    (tmp_path / "chakra.0.et").write_bytes(archive.extractfile(member).read())
  chosen = graphs.Settings(per_octave=per_octave, reduced=per_octave > 0)
  graph = graphs.read(tmp_path / "chakra.0.et", chosen)
  several = graphs.to_dags([graph], chosen)
  exporting.write(tmp_path / "out", several, KEEP)
  again = graphs.read(tmp_path / "out" / "chakra.0.et", chosen)
  assert len(again.ids) == 3664 and len(again.edges) == (3784 if per_octave else 181_878)
  _same(several, graphs.to_dags([again], chosen))
  if not per_octave:
    assert again.duration.sum() == graph.duration.sum() == 381_795


# ---- what simulators read ------------------------------------------------------------------------


def test_kinds_and_ids():
  trace, = _export(_dags(samples.training_step()))
  # By level from the end, producers first: 0 | 1 | 2, 4 | 3 | 5 (6 is metadata and is gone).
  assert [node.name for node in trace.nodes] == [
      "load", "aten::mm", "aten::mm", "c10d::allreduce_", "ncclAllReduce", "store"]
  assert [node.id for node in trace.nodes] == list(range(6))
  assert [list(node.data_deps) for node in trace.nodes] == [[], [0], [1], [1], [2, 3], [4]]
  assert [node.duration_micros for node in trace.nodes] == [0, 12, 12, 3, 40, 0]
  kinds = {(item.name, attributes.kind(item)) for node in trace.nodes for item in node.attr}
  assert kinds == {
      ("is_cpu_op", "bool_val"), ("num_ops", "int64_val"), ("tensor_size", "uint64_val"),
      ("comm_type", "int64_val"), ("comm_size", "int64_val"), ("involved_dim", "bool_list"),
      ("operator", "string_val")}
  assert attributes.as_dict(trace.nodes[4]) == {
      "is_cpu_op": False, "comm_type": et_def_pb2.ALL_REDUCE, "comm_size": 65536,
      "involved_dim": [True, False], "operator": "ncclAllReduce"}
  hidden, = _export(_dags(samples.training_step()), hide_names=True)
  assert [node.name for node in hidden.nodes][:2] == ["MEM_LOAD_NODE_0", "COMP_NODE_1"]
  assert all(attributes.find(node, "operator") is None for node in hidden.nodes)


def test_a_device_that_no_trace_states():
  several = _dags(samples.trace(
      samples.node(1, duration=3), samples.node(2, 1, kind=COLL, comm_type=2, comm_size=8)))
  report = exporting.Report()
  workload, = exporting.to_workloads(several, exporting.Settings(dims=2), report)
  assert [attributes.get(node, "is_cpu_op") for node in workload.traces[0].nodes] == [False, False]
  assert attributes.get(workload.traces[0].nodes[1], "involved_dim") == [True, True]
  assert (report.undefined_device, report.lone_collectives, report.durations_only) == (2, 1, 1)
  assert "2 nodes without a stated device" in str(report)


# ---- the zero-cost rule --------------------------------------------------------------------------


@pytest.mark.parametrize("node, costless", [
    (samples.node(1), True), (samples.node(1, duration=1), False),
    (samples.node(1, num_ops=5), True), (samples.node(1, tensor_size=5), True),
    (samples.node(1, num_ops=5, tensor_size=5), False),
    (samples.node(1, num_ops=0, tensor_size=5), True),
    (samples.node(1, kind=node_kinds.MEM_LOAD, duration=4), True),
    (samples.node(1, kind=node_kinds.MEM_STORE, tensor_size=4), False),
    (samples.node(1, kind=COLL, comm_type=0, duration=4), True),
    (samples.node(1, kind=COLL, comm_type=0, comm_size=4), False),
    (samples.node(1, kind=COLL, comm_type=et_def_pb2.BARRIER), False),
    (samples.node(1, kind=COLL, is_cpu_op=True, duration=4), False),
    (samples.node(1, kind=COLL, is_cpu_op=True, comm_type=0, comm_size=4), True),
    (samples.node(1, kind=SEND, comm_size=4), False), (samples.node(1, kind=RECV), True),
    (samples.node(1, kind=node_kinds.METADATA, duration=4), True),
    (samples.node(1, kind=node_kinds.INVALID, duration=4), True)])
def test_which_nodes_cost_nothing(node, costless):
  graph = trace_graph.from_trace(samples.trace(node), "job")
  assert decoding.unusable(graph).tolist() == [costless]


@settings(max_examples=60)
@given(samples.acyclic(), st.data())
def test_fusing_keeps_every_path(trace, data):
  nodes = decoding.decode(_dags(trace), 0)
  removed = np.array(data.draw(st.lists(
      st.booleans(), min_size=len(nodes), max_size=len(nodes))))
  if removed.all():
    with pytest.raises(errors.DataError, match="none of its"):
      decoding.fuse(nodes, removed, "job")
    return
  def reach(producers: tuple[tuple[int, ...], ...]) -> list[set[int]]:
    result: list[set[int]] = []
    for before in producers:
      result.append(set(before).union(*(result[other] for other in before)))
    return result
  fused = decoding.fuse(nodes, removed, "job")
  kept = np.flatnonzero(~removed).tolist()
  expected = [{kept.index(other) for other in reach(nodes.producers)[node] if other in kept}
              for node in kept]
  assert reach(fused.producers) == expected
  assert fused.names == tuple(nodes.names[node] for node in kept)


def test_refusing_and_keeping():
  several = _dags(samples.training_step())
  with pytest.raises(errors.DataError, match="1 of 7 nodes cost nothing.*process_group:init"):
    _export(several, zero_cost="refuse")
  assert len(_export(several, zero_cost="keep")[0].nodes) == 7
  with pytest.raises(errors.DataError, match="none of its 1 nodes has a cost"):
    _export(_dags(samples.trace(samples.node(1))))


def test_fusing_stays_within_its_limit(monkeypatch):
  monkeypatch.setattr(decoding, "MAX_EDGES", 100)
  # 20 producers, a node without cost, 20 consumers: 400 dependencies.
  nodes = [samples.node(index, duration=1) for index in range(20)]
  nodes += [samples.node(20, *range(20))]
  nodes += [samples.node(21 + index, 20, duration=1) for index in range(20)]
  with pytest.raises(errors.LimitError, match="transitive reduction"):
    _export(_dags(samples.trace(*nodes)))


def test_fusing_gives_small_graphs_no_more_dependencies_than_large_ones(monkeypatch):
  monkeypatch.setattr(decoding, "FREE_EDGES", 100)
  monkeypatch.setattr(decoding, "EDGES_RATIO", 2)
  nodes = [samples.node(index, duration=1) for index in range(20)]
  nodes += [samples.node(20, *range(20))]
  nodes += [samples.node(21 + index, 20, duration=1) for index in range(20)]
  with pytest.raises(errors.LimitError, match="more than 100 dependencies"):
    _export(_dags(samples.trace(*nodes)))


def test_names_of_files_that_repeat():
  taken: set[str] = set()
  numbers: dict[str, int] = {}
  for name in ["a", "a_2", "a", "a", "b", *["c"] * 5_000]:
    taken.add(exporting.unique(name, taken, numbers))
  assert {"a", "a_2", "a_3", "a_4", "b", "c", "c_2", "c_5000"} <= taken
  assert len(taken) == 5_005


def test_kinds_that_simulators_do_not_know():
  with pytest.raises(errors.DataError, match="NODE_TYPE_12"):
    _export(_dags(samples.trace(samples.node(1, kind=12, duration=5))))
  with pytest.raises(errors.DataError, match="do not state their kind"):
    _export(_dags(samples.trace(samples.node(1, kind=COLL, comm_size=5))))
  odd = _dags(samples.trace(
      samples.node(1, kind=COLL, comm_size=5, comm_type=99), samples.node(2, 1, kind=-3)))
  with pytest.raises(errors.DataError, match="NODE_TYPE_-3; give their type in a file"):
    _export(odd)
  kept, = _export(odd, zero_cost="keep")
  assert [node.type for node in kept.nodes] == [COLL, -3]
  typed = {"attribute": "type", "costs": {"NODE_TYPE_-3": {"type": "COMP_NODE"}}}
  with pytest.raises(errors.DataError, match="COLLECTIVE_99; give their comm_type in a file"):
    _export(odd, costs=costs.parse(typed, "c"))
  # What the message advises works.
  typed["costs"]["COMM_COLL_NODE"] = {"comm_type": "BARRIER"}
  trace, = _export(odd, costs=costs.parse(typed, "c"))
  assert attributes.get(trace.nodes[0], "comm_type") == et_def_pb2.BARRIER


# ---- costs ---------------------------------------------------------------------------------------


def test_costs_replace_what_the_graph_has():
  several = _dags(samples.training_step())
  given_costs = costs.parse({"attribute": "operator", "costs": {
      "aten::mm": {"num_ops": 77, "tensor_size": 6, "duration_micros": 9},
      "c10d::allreduce_": {"type": "COMP_NODE", "is_cpu_op": True},
      "process_group:init": {"type": "COMM_COLL_NODE", "comm_type": "BARRIER", "is_cpu_op": False},
  }}, "costs.json")
  trace, = _export(several, costs=given_costs)
  assert attributes.as_dict(trace.nodes[1]) == {
      "is_cpu_op": False, "num_ops": 77, "tensor_size": 6, "operator": "aten::mm"}
  assert trace.nodes[1].duration_micros == 9
  assert trace.nodes[3].type == node_kinds.COMP
  assert attributes.get(trace.nodes[6], "comm_type") == et_def_pb2.BARRIER


def test_graphs_of_another_kind_need_costs():
  several = dags.canonical([(np.array([[1, 0]]), np.array(["dot", "add"])[:, None])], ["opcode"])
  with pytest.raises(errors.DataError, match="none of its 2 nodes has a cost"):
    _export(several)
  trace, = _export(several, costs=costs.parse({"attribute": "opcode", "costs": {
      "dot": {"num_ops": 64, "tensor_size": 8}, "add": {"num_ops": 8, "tensor_size": 8}}}, "c"))
  assert [(node.name, list(node.data_deps)) for node in trace.nodes] == [("dot", []), ("add", [0])]
  with pytest.raises(errors.DataError, match="'kind', but the graphs have the attributes opcode"):
    _export(several, costs=costs.Costs("kind", {}))


@pytest.mark.parametrize("value, message", [
    ([], "expected an object with the keys"), ({"attribute": "a"}, "expected an object"),
    ({"attribute": 3, "costs": {}}, "'attribute' is 3 and 'costs' is {}; expected the name"),
    ({"attribute": "a", "costs": {"b": {}}}, r"costs\['b'\] is {}; expected an object"),
    ({"attribute": "a", "costs": {"b": {"num_op": 3}}}, "did you mean 'num_ops'"),
    ({"attribute": "a", "costs": {"b": {"num_ops": -3}}}, "num_ops is -3"),
    ({"attribute": "a", "costs": {"b": {"num_ops": True}}}, "num_ops is True"),
    ({"attribute": "a", "costs": {"b": {"is_cpu_op": 1}}}, "expected true or false"),
    ({"attribute": "a", "costs": {"b": {"type": "COMP"}}}, "type is 'COMP'"),
    ({"attribute": "a", "costs": {"b": {"comm_size": 3, "tensor_size": 3}}}, "are both the bytes")])
def test_costs_of_another_form(value, message):
  with pytest.raises(errors.DataError, match=message):
    costs.parse(value, "costs.json")


def test_buckets_without_stored_numbers_give_their_middle():
  several = _dags(samples.training_step()).with_provenance({})
  report = exporting.Report()
  workload, = exporting.to_workloads(several, exporting.Settings(), report)
  assert report.midpoints == 2 + 1 + 2 + 5  # 12-15 twice, 32-45; 8192-11585 twice; bytes.
  assert workload.traces[0].nodes[4].duration_micros == 38  # sqrt(32 * 45) = 37.9


def test_values_that_no_import_writes():
  for name, word in (("duration", "fast"), ("type", "GPU"), ("device", "tpu"),
                     ("collective", "SUM"), ("bytes", "99999999999999999999")):
    several = dags.canonical([(np.zeros([0, 2]), np.array([[word]]))], [name])
    with pytest.raises(errors.DataError, match=f"graph 0 .*attribute {name} has the value"):
      list(exporting.to_workloads(several))


# ---- ranks ---------------------------------------------------------------------------------------


def _collectives(*kinds: int, size: int = 8, pool: str = "") -> traces.Trace:
  nodes = [samples.node(0, duration=1, is_cpu_op=False)]
  for index, kind in enumerate(kinds):
    nodes.append(samples.node(index + 1, index, kind=COLL, is_cpu_op=False, comm_type=kind,
                              comm_size=size, **({"pg_name": pool} if pool else {})))
  return samples.trace(*nodes)


def test_one_graph_on_several_ranks():
  written = _export(_dags(samples.training_step()), ranks=3)
  assert len(written) == 3
  assert written[0] == written[1] == written[2]


def test_the_ranks_of_a_workload():
  several = _dags(_collectives(0, 2), _collectives(0, 2))
  assert len(_export(several)) == 2
  # Each graph on every rank, if the user says so.
  assert [workload.name for workload in exporting.to_workloads(
      several, exporting.Settings(ranks=4))] == ["job_rank0", "job_rank1"]


@pytest.mark.parametrize("one, other, message", [
    (_collectives(0, 2), _collectives(2, 0), "collective 0 .* ALL_REDUCE .* rank 0 and ALL_GATHER"),
    (_collectives(0, 2), _collectives(0), "collective 1 .* and nothing on rank 1"),
    (_collectives(0), _collectives(0, size=9999), "8 bytes on rank 0")])
def test_collectives_that_do_not_match(one, other, message):
  with pytest.raises(errors.DataError, match=message):
    _export(_dags(one, other))


def test_process_groups_are_matched_apart():
  several = _dags(_collectives(0, pool="a"), _collectives(2, 2, pool="b"),
                  _collectives(0, pool="a"))
  written = _export(several)
  # Names as ASTRA-sim takes them: whole numbers from 1. A group of all ranks needs none.
  assert [attributes.get(trace.nodes[1], "pg_name") for trace in written] == ["1", "2", "1"]
  for trace in written:
    assert json.loads(attributes.get(trace.metadata, "comm_groups")) == {"1": [0, 2], "2": [1]}
  named = _dags(_collectives(0, pool="3"), _collectives(0, pool="0"), _collectives(0, pool="3"))
  assert [attributes.get(trace.nodes[1], "pg_name") for trace in _export(named)] == ["3", "1", "3"]
  for alike in ([_collectives(0, pool="tp")] * 2, [_collectives(0, pool="5")]):
    for trace in _export(_dags(*alike)):
      assert attributes.find(trace.nodes[1], "pg_name") is None
  kept, *_ = exporting.to_workloads(_dags(_collectives(0, pool="tp")), KEEP)
  assert attributes.get(kept.traces[0].nodes[1], "pg_name") == "tp"


def test_a_missing_rank():
  graph = trace_graph.from_trace(samples.training_step(), "job.0.et")
  other = trace_graph.from_trace(samples.training_step(), "job.2.et")
  with pytest.raises(errors.DataError, match=r"ranks \[0, 2\]; missing: 1; expected ranks 0 to 2"):
    list(exporting.to_workloads(graphs.to_dags([graph, other])))


def _message(kind: int, source: int, target: int, identifier: int, *deps: int, size: int = 8
             ) -> traces.Node:
  return samples.node(identifier, *deps, kind=kind, is_cpu_op=False, comm_size=size,
                      comm_src=source, comm_dst=target)


def test_messages_are_paired():
  # Rank 0 sends two messages to rank 1; rank 1 answers the first.
  one = samples.trace(_message(SEND, 0, 1, 0), _message(SEND, 0, 1, 1, 0, size=64),
                      _message(RECV, 1, 0, 2, 0))
  other = samples.trace(_message(RECV, 0, 1, 0), _message(RECV, 0, 1, 1, 0, size=64),
                        _message(SEND, 1, 0, 2, 0))
  written = _export(_dags(one, other))
  ends = [[(node.type, *(attributes.get(node, key) for key in ("comm_src", "comm_dst", "comm_tag")))
           for node in trace.nodes] for trace in written]
  assert sorted(ends[0]) == [(SEND, 0, 1, 0), (SEND, 0, 1, 1), (RECV, 1, 0, 0)]
  assert sorted(ends[1]) == [(SEND, 1, 0, 0), (RECV, 0, 1, 0), (RECV, 0, 1, 1)]
  kinds = {attributes.kind(attributes.find(node, key)) for trace in written for node in trace.nodes
           for key in ("comm_src", "comm_dst", "comm_tag")}
  assert kinds == {"int32_val"}


def test_a_ring_of_one_graph():
  ring = samples.trace(_message(SEND, 0, 1, 0), _message(RECV, 0, 1, 1, 0))
  written = _export(_dags(ring), ranks=3)
  ends = [{node.type: (attributes.get(node, "comm_src"), attributes.get(node, "comm_dst"))
           for node in trace.nodes} for trace in written]
  assert ends == [{SEND: (0, 1), RECV: (2, 0)}, {SEND: (1, 2), RECV: (0, 1)},
                  {SEND: (2, 0), RECV: (1, 2)}]
  waiting = samples.trace(_message(RECV, 0, 1, 0), _message(SEND, 0, 1, 1, 0))
  with pytest.raises(errors.DataError, match="wait for each other"):
    _export(_dags(waiting), ranks=3)
  with pytest.raises(errors.DataError, match="talks to rank 0, but there are 1 ranks"):
    _export(_dags(ring))


@pytest.mark.parametrize("one, other, message", [
    ([_message(SEND, 0, 1, 0)], [samples.node(0, duration=1)], "sends 1 messages .* receives 0"),
    ([_message(SEND, 0, 1, 0)], [_message(RECV, 0, 1, 0, size=4096)], "8 bytes where it is sent"),
    ([_message(SEND, 0, 5, 0)], [samples.node(0, duration=1)], "talks to rank 5"),
    ([samples.node(0, kind=SEND, comm_size=8)], [samples.node(0, duration=1)],
     "does not state its peer"),
    ([_message(RECV, 1, 0, 0), _message(SEND, 0, 1, 1, 0)],
     [_message(RECV, 0, 1, 0), _message(SEND, 1, 0, 1, 0)], "wait for each other")])
def test_messages_without_a_partner(one, other, message):
  with pytest.raises(errors.DataError, match=message):
    _export(_dags(samples.trace(*one), samples.trace(*other)))


# ---- files ---------------------------------------------------------------------------------------


def test_files(tmp_path):
  several = _dags(samples.training_step(), samples.training_step())
  report = exporting.write(tmp_path / "out", several, compress=True)
  names = ["job.0.et", "job.1.et"]
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
  assert (report.graphs, report.files, report.nodes, report.fused) == (2, 2, 12, 2)
  assert (tmp_path / "out" / "job.0.et").read_bytes()[:2] == b"\x1f\x8b"
  with pytest.raises(errors.OutputError, match=r"traces already, such as job.0.et"):
    exporting.write(tmp_path / "out", several)
  with pytest.raises(errors.OutputError, match="is a file"):
    exporting.write(tmp_path / "out" / "job.0.et", several)


def test_the_file_of_process_groups(tmp_path):
  exporting.write(tmp_path / "out", _dags(
      _collectives(0, pool="a"), _collectives(2, pool="b"), _collectives(0, pool="a")))
  assert json.loads((tmp_path / "out" / "job.comm_groups").read_text()) == {
      "1": [0, 2], "2": [1]}


def test_nothing_is_written_after_an_error(tmp_path):
  good = samples.training_step()
  graph = [trace_graph.from_trace(trace, name) for trace, name in (
      (good, "a.0.et"), (samples.trace(samples.node(1)), "b.0.et"))]
  with pytest.raises(errors.DataError, match="has a cost"):
    exporting.write(tmp_path / "out", graphs.to_dags(graph))
  assert not (tmp_path / "out").exists()


def test_names_of_files_stay_in_the_folder(tmp_path):
  several = _dags(samples.training_step())
  hostile = several.with_provenance({**several.provenance, "workloads": ["../../x\n"]})
  exporting.write(tmp_path / "out", hostile)
  assert [path.name for path in (tmp_path / "out").iterdir()] == ["_.._x_.0.et"]
  for index, provenance in enumerate((
      {"workloads": 3}, {"buckets": [1]}, {"buckets": {"values": {"bytes": 3}}})):
    exporting.write(tmp_path / str(index), several.with_provenance(provenance))


@pytest.mark.parametrize("change", [{"ranks": 0}, {"zero_cost": "drop"}, {"dims": 0}])
def test_settings_out_of_range(change):
  with pytest.raises(errors.ConfigError):
    exporting.Settings(**change)
