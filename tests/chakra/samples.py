"""Small traces for tests, and strategies that draw some."""

from hypothesis import strategies as st

from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import traces

# A value of each kind of attribute that is not the default of its type.
VALUES = {
    "double_val": 1.5, "float_val": -2.5, "int32_val": -3, "int64_val": -2 ** 40, "uint32_val": 7,
    "uint64_val": 2 ** 63 + 1, "sint32_val": -9, "sint64_val": -2 ** 50, "fixed32_val": 11,
    "fixed64_val": 2 ** 60, "sfixed32_val": -13, "sfixed64_val": -2 ** 55, "bool_val": True,
    "string_val": "text é", "bytes_val": b"\x00\xff"}


def node(identifier: int, *data_deps: int, name: str = "aten::mm", kind: int = node_kinds.COMP,
         duration: int = 0, ctrl_deps: tuple[int, ...] = (), **values) -> traces.Node:
  """A node with attributes of the kinds that simulators read."""
  result = traces.Node(id=identifier, name=name, type=kind, data_deps=data_deps,
                       ctrl_deps=ctrl_deps, duration_micros=duration)
  for key, value in values.items():
    attributes.put(result, key, value)
  return result


def trace(*nodes: traces.Node, version: str = "1.0.0") -> traces.Trace:
  """A trace of these nodes."""
  return traces.Trace(traces.GlobalMetadata(version=version), list(nodes))


def every_kind() -> traces.Trace:
  """A trace with all kinds of attributes, texts and node types."""
  result = trace(node(0, kind=node_kinds.METADATA))
  for name, value in VALUES.items():
    attributes.put(result.nodes[0], name, value, name)
    listed = name.replace("_val", "_list")
    attributes.put(result.nodes[0], listed, [value, value], listed)
  result.nodes[0].attr[0].doc_string = "a note"
  attributes.put(result.metadata, "schema", "1.0.1")
  result.nodes[0].inputs.CopyFrom(et_def_pb2.IOInfo(
      values="[1]", shapes="[[2]]", types="['Tensor(float)']"))
  for kind in range(8):
    result.nodes.append(node(kind + 1, kind, kind=kind, duration=kind, ctrl_deps=(0,)))
  result.nodes.append(node(10, 9, kind=12))
  return result


def training_step() -> traces.Trace:
  """One step of data-parallel training: load, two products, a broadcast of the host, a reduction.

    0 load -> 1 mm -> 2 mm -> 3 all-reduce -> 5 store;  4 a launch of the host; 6 metadata
  """
  return trace(
      node(0, name="load", kind=node_kinds.MEM_LOAD, is_cpu_op=False, tensor_size=4096),
      node(1, 0, duration=12, is_cpu_op=False, num_ops=8192, tensor_size=4096),
      node(2, 1, duration=13, is_cpu_op=False, num_ops=8192, tensor_size=2048),
      node(3, 2, 4, name="ncclAllReduce", kind=node_kinds.COMM_COLL, duration=40, is_cpu_op=False,
           comm_type=et_def_pb2.ALL_REDUCE, comm_size=65536, involved_dim=[True, False],
           pg_name="7"),
      node(4, 1, name="c10d::allreduce_", kind=node_kinds.COMM_COLL, duration=3, is_cpu_op=True),
      node(5, 3, name="store", kind=node_kinds.MEM_STORE, is_cpu_op=False, tensor_size=4096),
      node(6, 2, name="process_group:init", kind=node_kinds.METADATA, is_cpu_op=True))


_NUMBERS = st.one_of(st.none(), st.integers(0, 40), st.integers(0, 2 ** 63 - 1))


@st.composite
def acyclic(draw: st.DrawFn, most: int = 12) -> traces.Trace:
  """A trace without faults: any ids, order of nodes, dependencies and attributes."""
  count = draw(st.integers(1, most))
  ids = draw(st.lists(st.integers(0, 2 ** 64 - 1), min_size=count, max_size=count, unique=True))
  nodes = []
  for index, identifier in enumerate(ids):
    before = draw(st.sets(st.sampled_from(ids[:index]))) if index else set()
    kind = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 9]))
    new = node(identifier, *draw(st.permutations(sorted(before))), kind=kind,
               name=draw(st.sampled_from(["aten::mm", "aten::add_(1)", "nccl", "fusion.12", ""])),
               duration=draw(st.integers(0, 10 ** 6)))
    for key, values in (
        ("num_ops", _NUMBERS), ("comm_size" if kind in node_kinds.COMMUNICATION else "tensor_size",
                                _NUMBERS)):
      number = draw(values)
      if number is not None:
        attributes.put(new, key, number)
    device = draw(st.sampled_from([None, False, True]))
    if device is not None:
      attributes.put(new, "is_cpu_op", device)
    if kind == node_kinds.COMM_COLL and draw(st.booleans()):
      attributes.put(new, "comm_type", draw(st.integers(0, 10)))
      attributes.put(new, "involved_dim", draw(st.lists(st.booleans(), min_size=1, max_size=3)))
      attributes.put(new, "pg_name", draw(st.sampled_from(["0", "mesh"])))
    nodes.append(new)
  return trace(*draw(st.permutations(nodes)))
