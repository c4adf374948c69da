"""Execution traces that PyTorch's profiler writes as JSON (ExecutionTraceObserver).

Such a trace is a tree of calls with the tensors that each call reads and writes, without data
dependencies. It becomes a Chakra trace as follows.

  nodes         the calls without calls of their own, and the communication calls (`nccl:...`);
                kernels, if trace_link has added them
  dependencies  the last earlier node that wrote the storage of a tensor that the node reads or
                writes. With kernels in the trace, tensors belong to the kernels; a kernel also
                waits for the call that launched it and for the kernel before it on its stream, and
                a call waits for the call before it in its thread
  bytes         of the distinct tensors that a node reads and writes; of communication, those that
                it reads
  durations     those that trace_link has added; a trace of the host alone has none
  device        `is_cpu_op` is true without a tensor on a device; with kernels, for all calls

Operations are not in such a trace and are not filled in.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import node_kinds

# Names of collectives in lower case without "_", as PyTorch and NCCL write them.
_COLLECTIVES = {
    "allreduce": et_def_pb2.ALL_REDUCE, "allgather": et_def_pb2.ALL_GATHER,
    "reducescatter": et_def_pb2.REDUCE_SCATTER, "alltoall": et_def_pb2.ALL_TO_ALL,
    "broadcast": et_def_pb2.BROADCAST, "barrier": et_def_pb2.BARRIER,
    "scatter": et_def_pb2.SCATTER, "gather": et_def_pb2.GATHER, "reduce": et_def_pb2.REDUCE}
# Longer names first: "reducescatter" contains "reduce".
_ORDERED = sorted(_COLLECTIVES, key=len, reverse=True)
_RECORD = "record_param_comms"
_TENSOR_FIELDS = 6
# Tensors that communication takes from the call around it, of all nodes together: many nodes could
# share one long list. Real calls pass at most some thousand tensors.
_MAX_SHARED = 2_000_000


@dataclasses.dataclass
class _Call:
  """A node of the JSON file."""

  identifier: int
  name: str
  parent: int | None
  entry: dict[str, Any]
  reads: list[tuple[int, int, bool]]
  writes: list[tuple[int, int, bool]]
  is_kernel: bool


def convert(value: dict[str, Any], source: files.PathLike
            ) -> tuple[et_def_pb2.GlobalMetadata, list[et_def_pb2.Node]]:
  """Converts a PyTorch execution trace.

  Args:
    value: the JSON file, with the keys `schema` and `nodes`.
    source: its name in messages.

  Raises:
    DataError: a node lacks its id, name or parent, or has an unexpected value; the message names
      the node.
  """
  calls = sorted((_call(entry, f"{source}: nodes[{index}]")
                  for index, entry in enumerate(value["nodes"])), key=lambda call: call.identifier)
  metadata = et_def_pb2.GlobalMetadata()
  for key in ("schema", "pid", "time", "start_ts", "finish_ts"):
    content = value.get(key)
    if isinstance(content, (int, str)) and not isinstance(content, bool):
      _put(metadata, key, content, f"{source}: {key}")
  return metadata, _Converter(calls, source).nodes()


class _Converter:
  """Chooses nodes and finds their dependencies."""

  def __init__(self, calls: Sequence[_Call], source: files.PathLike) -> None:
    self._calls = calls
    self._source = source
    self._shared = 0
    self._of_id = {call.identifier: call for call in calls}
    self._callers = {call.parent for call in calls if not call.is_kernel}
    self._has_kernels = any(call.is_kernel for call in calls)
    self._writer: dict[int, int] = {}
    self._last: dict[tuple[str, int], int] = {}

  def nodes(self) -> list[et_def_pb2.Node]:
    kept = [call for call in self._calls if self._is_operator(call)]
    identifiers = {call.identifier for call in kept}
    return [self._node(call, identifiers) for call in kept]

  def _is_operator(self, call: _Call) -> bool:
    return call.is_kernel or call.identifier not in self._callers or (
        call.name.startswith("nccl:"))

  def _node(self, call: _Call, kept: set[int]) -> et_def_pb2.Node:
    kind, collective = self._kind(call)
    node = et_def_pb2.Node(id=call.identifier, name=call.name, type=kind)
    parent = self._of_id.get(call.parent) if call.parent is not None else None
    reads, writes = call.reads, call.writes
    if not writes and kind == node_kinds.COMM_COLL and parent and parent.name == _RECORD:
      writes = parent.writes
      self._shared += len(writes)
      if self._shared > _MAX_SHARED:
        raise errors.LimitError(
            f"{self._source}: communication takes more than {_MAX_SHARED:,} tensors, the limit, "
            f"from calls of {_RECORD}; check the outputs of these calls, or divide the trace")
    depends: set[int] = set()
    if not self._has_kernels or call.is_kernel:
      depends |= {self._writer[storage] for storage, *_ in (*reads, *writes)
                  if storage in self._writer}
      self._writer |= {storage: call.identifier for storage, *_ in writes}
    if self._has_kernels:
      queue = ("stream" if call.is_kernel else "tid", _number(call.entry, "stream") if (
          call.is_kernel) else _number(_stated(call.entry), "tid"))
      if queue in self._last:
        depends.add(self._last[queue])
      self._last[queue] = call.identifier
      if call.is_kernel and call.parent in kept:
        depends.add(call.parent)
    if call.parent in kept:
      node.ctrl_deps.append(call.parent)
    depends.discard(call.identifier)
    node.data_deps.extend(sorted(depends))
    node.duration_micros = _number(call.entry, "exclusive_dur", "dur")
    node.start_time_micros = _number(call.entry, "ts")
    on_device = any(device for *_, device in (*reads, *writes)) or kind == node_kinds.COMM_COLL
    attributes.put(node, "is_cpu_op", not (call.is_kernel if self._has_kernels else on_device))
    if collective is not None:
      attributes.put(node, "comm_type", collective)
    distinct = {storage: size for storage, size, _ in (
        reads if kind == node_kinds.COMM_COLL else (*reads, *writes))}
    if distinct:
      attributes.put(node, "comm_size" if kind == node_kinds.COMM_COLL else "tensor_size",
                     min(sum(distinct.values()), 2 ** 63 - 1))
    group = call.entry.get("pg_name")
    if isinstance(group, str) and group and kind == node_kinds.COMM_COLL:
      attributes.put(node, "pg_name", group)
    known = {attribute.name for attribute in node.attr}
    for name, content in _stated(call.entry).items():
      if name not in known and isinstance(content, (bool, int, float, str)):
        _put(node, name, content, f"node {call.identifier}")
    return node

  def _kind(self, call: _Call) -> tuple[et_def_pb2.NodeType, int | None]:
    """Node type and kind of collective."""
    name = call.name.lower()
    if "process_group:init" in name:
      return node_kinds.METADATA, None
    if name == _RECORD:
      # The name of the collective is among the values, next to "wait" or "init".
      for text in _texts(call.entry):
        if (found := _collective(text)) is not None:
          return node_kinds.COMM_COLL, found
      return node_kinds.METADATA, None
    if name.startswith("nccl:") or (call.is_kernel and name.startswith("nccl")):
      return node_kinds.COMM_COLL, _collective(name.removeprefix("nccl:"))
    return node_kinds.COMP, None


def _call(entry: Any, where: str) -> _Call:
  if not isinstance(entry, dict):
    raise errors.DataError(f"{where} is {escaping.value(entry)}; expected an object; correct the "
                           "file, or record the trace again")
  identifier, name = entry.get("id"), entry.get("name")
  if type(identifier) is not int or not 0 <= identifier < 2 ** 64:
    raise errors.DataError(f"{where}: id is {escaping.value(identifier)}; expected a whole number; "
                           "record the trace again")
  if not isinstance(name, str):
    raise errors.DataError(f"{where}: name is {escaping.value(name)}; expected a string; record "
                           "the trace again")
  parent = entry.get("ctrl_deps", entry.get("parent"))
  if type(parent) is not int or not 0 <= parent < 2 ** 64:
    parent = None
  return _Call(identifier, name, parent, entry, list(_tensors(_values(entry, "input"))),
               list(_tensors(_values(entry, "output"))), isinstance(entry.get("cat"), str))


def _values(entry: dict[str, Any], side: str) -> Any:
  """What a call reads or writes; before schema 1.0.2 the values stand in the node itself."""
  content = entry.get(f"{side}s")
  return content.get("values") if isinstance(content, dict) else content


def _tensors(value: Any) -> Iterator[tuple[int, int, bool]]:
  """Storage, bytes and "is on a device" of each tensor in nested lists.

  A tensor is [tensor, storage, offset, elements, bytes of an element, device].
  """
  waiting = [value]
  while waiting:
    item = waiting.pop()
    if not isinstance(item, list):
      continue
    numbers, device = item[:_TENSOR_FIELDS - 1], item[_TENSOR_FIELDS - 1:]
    if len(device) == 1 and isinstance(device[0], str) and all(
        type(number) is int for number in numbers):
      tensor, storage, _, elements, width = numbers
      if device[0]:
        # Storage 0 is unknown; tensors and storages share their numbers.
        yield storage or tensor, max(elements * width, 0), not device[0].startswith("cpu")
    else:
      waiting += reversed(item)


def _texts(entry: dict[str, Any]) -> Iterator[str]:
  values = _values(entry, "input")
  for item in [*(values if isinstance(values, list) else ()), *_stated(entry).values()]:
    if isinstance(item, str):
      yield item


def _collective(text: str) -> int | None:
  plain = text.lower().replace("_", "").replace("-", "")
  return next((_COLLECTIVES[name] for name in _ORDERED if name in plain), None)


def _stated(entry: dict[str, Any]) -> dict[str, Any]:
  """The attributes of a call by name."""
  listed = entry.get("attrs")
  return {item["name"]: item.get("value") for item in listed if isinstance(item, dict)
          and isinstance(item.get("name"), str)} if isinstance(listed, list) else {}


def _number(entry: dict[str, Any], *names: str) -> int:
  """The first of these numbers, rounded; 0 if there is none."""
  for name in names:
    number = entry.get(name)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and (
        math.isfinite(number) and 0 <= number < 2 ** 63):
      return round(number)
  return 0


def _put(owner: attributes.Owner, name: str, content: Any, where: str) -> None:
  """Stores a value as a new attribute; a number that no kind holds, as text."""
  if type(content) is int and not -2 ** 63 <= content < 2 ** 63:
    content = str(content)
  try:
    attributes.add(owner, name, content)
  except errors.DataError as error:
    raise errors.DataError(f"{where}: {error}") from None
