"""PyTorch execution traces: which calls become nodes, and what they wait for."""

import json
import pathlib
from typing import Any

import pytest

from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import pytorch_form
from tpugraphs_rank.chakra import trace_graph
from tpugraphs_rank.chakra import traces


def _tensor(storage: int, elements: int, device: str = "cuda:0") -> list[Any]:
  return [storage + 100, storage, 0, elements, 4, device]


def _call(identifier: int, parent: int, name: str, reads: list[Any] = [], writes: list[Any] = [],
          attrs: dict[str, Any] = {}, **rest: Any) -> dict[str, Any]:
  return {"id": identifier, "name": name, "ctrl_deps": parent,
          "inputs": {"values": reads, "shapes": [], "types": []},
          "outputs": {"values": writes, "shapes": [], "types": []},
          "attrs": [{"name": key, "type": "int64", "value": value}
                    for key, value in attrs.items()], **rest}


def _read(folder: pathlib.Path, nodes: list[Any], **rest: Any) -> traces.Trace:
  path = folder / "trace.json"
  path.write_text(json.dumps({"schema": "1.0.2-chakra.0.0.4", "pid": 7, "nodes": nodes, **rest}))
  return traces.read(path)


def _summary(trace: traces.Trace) -> dict[int, tuple[str, int, list[int]]]:
  return {node.id: (node.name, node.type, list(node.data_deps)) for node in trace.nodes}


COMP, COLL, META = et_def_pb2.COMP_NODE, et_def_pb2.COMM_COLL_NODE, et_def_pb2.METADATA_NODE


def test_a_trace_of_the_host(tmp_path):
  trace = _read(tmp_path, [
      _call(2, 1, "[pytorch|profiler|execution_trace|thread]"),
      _call(3, 2, "## process_group:init ##"),
      _call(4, 2, "aten::randn", [], [_tensor(1, 10)]),
      # A call that calls another one is no node.
      _call(5, 2, "aten::linear", [_tensor(1, 10)], [_tensor(2, 20)]),
      _call(6, 5, "aten::mm", [_tensor(1, 10), [_tensor(1, 10)]], [_tensor(2, 20)], {"tid": 1}),
      _call(7, 2, "aten::relu_", [_tensor(2, 20)], [_tensor(2, 20)]),
      _call(8, 2, "c10d::allreduce_", [[_tensor(2, 20)]], []),
      _call(9, 8, "record_param_comms", [[_tensor(2, 20)], 1, "allreduce"], [_tensor(2, 20)]),
      _call(10, 9, "nccl:all_reduce", [_tensor(2, 20)], []),
      _call(11, 10, "aten::copy_", [_tensor(3, 5, "cpu")], [_tensor(3, 5, "cpu")]),
      _call(12, 2, "record_param_comms", [12, "wait"], []),
      _call(13, 2, "aten::sum", [_tensor(2, 20)], [_tensor(4, 1)])])
  assert _summary(trace) == {
      3: ("## process_group:init ##", META, []), 4: ("aten::randn", COMP, []),
      6: ("aten::mm", COMP, [4]), 7: ("aten::relu_", COMP, [6]),
      10: ("nccl:all_reduce", COLL, [7]), 11: ("aten::copy_", COMP, []),
      12: ("record_param_comms", META, []), 13: ("aten::sum", COMP, [10])}
  of_id = {node.id: attributes.as_dict(node) for node in trace.nodes}
  # 10 elements of the tensor that is read twice, and 20 that are written.
  assert of_id[6] == {"is_cpu_op": False, "tensor_size": 120, "tid": 1}
  assert of_id[10] == {"is_cpu_op": False, "comm_type": et_def_pb2.ALL_REDUCE, "comm_size": 80}
  assert of_id[11] == {"is_cpu_op": True, "tensor_size": 20}
  assert attributes.as_dict(trace.metadata) == {"schema": "1.0.2-chakra.0.0.4", "pid": 7}


def test_a_trace_with_kernels(tmp_path):
  kernel = {"cat": "kernel", "stream": 7, "exclusive_dur": 12.6, "ts": 5}
  trace = _read(tmp_path, [
      _call(1, 0, "aten::mm", [], [_tensor(1, 4)], {"tid": 1}, exclusive_dur=3),
      _call(2, 1, "gemm", [], [_tensor(1, 4)], **kernel),
      _call(3, 0, "aten::add", [_tensor(1, 4)], [_tensor(2, 4)], {"tid": 1}),
      _call(4, 3, "add", [_tensor(1, 4)], [_tensor(2, 4)], **{**kernel, "stream": 8}),
      _call(5, 3, "ncclDevKernel_ReduceScatter_Sum", [_tensor(9, 4)], [], pg_name="3", **kernel)])
  assert _summary(trace) == {
      1: ("aten::mm", COMP, []), 2: ("gemm", COMP, [1]), 3: ("aten::add", COMP, [1]),
      4: ("add", COMP, [2, 3]), 5: ("ncclDevKernel_ReduceScatter_Sum", COLL, [2, 3])}
  assert [node.duration_micros for node in trace.nodes] == [3, 13, 0, 13, 13]
  assert [attributes.get(node, "is_cpu_op") for node in trace.nodes] == [
      True, False, True, False, False]
  last = attributes.as_dict(trace.nodes[-1])
  assert (last["comm_type"], last["pg_name"]) == (et_def_pb2.REDUCE_SCATTER, "3")


def test_the_form_before_schema_1_0_2(tmp_path):
  trace = _read(tmp_path, [
      {"id": 1, "name": "a", "parent": 0, "inputs": [], "outputs": [_tensor(1, 2)]},
      {"id": 2, "name": "b", "parent": 0, "inputs": [3, _tensor(1, 2)], "outputs": []}])
  assert _summary(trace) == {1: ("a", COMP, []), 2: ("b", COMP, [1])}


@pytest.mark.parametrize("nodes, message", [
    ([3], r"nodes\[0\] is 3"), ([{"id": "x", "name": "a"}], "id is 'x'"),
    ([{"id": -1, "name": "a"}], "id is -1"), ([{"id": 1}], "name is None"),
    ([{"id": True, "name": "a"}], "id is True")])
def test_damaged_traces(tmp_path, nodes, message):
  with pytest.raises(errors.DataError, match=message):
    _read(tmp_path, nodes)


def test_odd_values_are_left_out_or_kept_as_text(tmp_path):
  trace = _read(tmp_path, [
      _call(1, 0, "a", [[[[]]], "x", None, [1, 2, 3, 4, 5, 6]], [[9, 8, 0, -5, 4, "cpu"]],
            {"big": 10 ** 30, "none": None, "list": [1], "text": "t"}, exclusive_dur=-4,
            ts="soon"),
      {"id": 2, "name": "b", "attrs": 5, "inputs": 7, "outputs": None, "ctrl_deps": "x"}])
  assert attributes.as_dict(trace.nodes[0]) == {
      "is_cpu_op": True, "tensor_size": 0, "big": str(10 ** 30), "text": "t"}
  assert trace.nodes[0].duration_micros == 0
  assert trace.nodes[1].name == "b"


def test_communication_that_shares_a_long_list_stays_within_its_limit(tmp_path, monkeypatch):
  monkeypatch.setattr(pytorch_form, "_MAX_SHARED", 100)
  tensors = [[number, number, 0, 4, 4, "cuda:0"] for number in range(1, 30)]
  nodes = [_call(1, 0, "record_param_comms", ["allreduce"], tensors)]
  nodes += [_call(number, 1, "nccl:all_reduce", [], []) for number in range(2, 5)]
  assert len(_read(tmp_path, nodes).nodes) == 3
  nodes += [_call(number, 1, "nccl:all_reduce", [], []) for number in range(5, 50)]
  with pytest.raises(errors.LimitError, match="more than 100 tensors, the limit"):
    _read(tmp_path, nodes)


@testdata.required
def test_the_real_host_trace(tmp_path):
  import tarfile
  with tarfile.open(testdata.path("chakra/1.0.2-chakra.0.0.4.tgz")) as archive:
    member = next(item for item in archive.getmembers() if "._" not in item.name)
    (tmp_path / "host.json").write_bytes(archive.extractfile(member).read())
  trace = traces.read(tmp_path / "host.json")
  # 161 calls call nothing; 10 all-gathers copy their results.
  assert len(trace.nodes) == 171
  gathers = [node for node in trace.nodes if node.type == COLL]
  assert len(gathers) == 10
  assert all(attributes.get(node, "comm_type") == et_def_pb2.ALL_GATHER for node in gathers)
  graph = trace_graph.from_trace(trace, "host")
  assert graph.report.dangling == graph.report.self_loops == 0
