"""Traces as JSON: the form of the reference jsonizer, and that of the JSON trace feeder.

The reference jsonizer writes the metadata and then one object for each node, one after another
without separators; protobuf's JSON mapping gives their keys. The feeder's form is one object with a
list `workload_graph`, whose nodes have keys such as `Id`, `NodeType`, `data_deps` and `runtime`.
Traces that PyTorch's profiler writes are JSON too; `pytorch_form` reads them.
"""

from collections.abc import Iterable, Iterator
import json
import math
from typing import Any, BinaryIO

from google.protobuf import json_format
from google.protobuf import message as protobuf

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import frames
from tpugraphs_rank.chakra import node_kinds
from tpugraphs_rank.chakra import pytorch_form

# Unpacked bytes of a JSON file. Its values take up to twenty times as much memory.
MAX_BYTES = 128 << 20
_BOM = b"\xef\xbb\xbf"
# Keys of the feeder's form, in lower case and without underscores.
_FEEDER_FIELDS = {"id": "id", "name": "name", "nodetype": "type", "type": "type",
                  "ctrldeps": "ctrl_deps", "datadeps": "data_deps", "runtime": "duration_micros",
                  "durationmicros": "duration_micros", "starttimemicros": "start_time_micros"}
_TIMES = ("duration_micros", "start_time_micros")

Parsed = tuple[et_def_pb2.GlobalMetadata, Iterator[et_def_pb2.Node]]


def is_json(start: bytes) -> bool:
  """Whether a file that starts with these bytes is JSON rather than a binary trace.

  The length of a binary message may look like the beginning of JSON: metadata of 123 bytes starts
  with "{". Such a file is binary if its first message can be read as metadata and nothing else.
  """
  text = start.removeprefix(_BOM).lstrip(b" \t\r\n")
  if not text.startswith((b"{", b"[")):
    return False
  length = start[0]
  if length >= 0x80 or len(start) <= length:
    return True
  try:
    metadata = et_def_pb2.GlobalMetadata.FromString(start[1:length + 1])
  except protobuf.DecodeError:
    return True
  metadata.DiscardUnknownFields()
  return metadata.ByteSize() != length


def parse(content: BinaryIO, source: files.PathLike) -> Parsed:
  """Reads a trace in one of the JSON forms: its metadata, and its nodes one after another.

  Raises, also from the iterator:
    DataError: it is no valid JSON, or in no form that is known; the message names the place.
    LimitError: it is larger than the limit for JSON.
  """
  data = frames.read(content, MAX_BYTES + 1, source)
  if len(data) > MAX_BYTES:
    raise errors.LimitError(
        f"{source} has more than {MAX_BYTES >> 20} MiB of JSON, the limit; write the trace in the "
        "binary form with the tool that wrote it")
  try:
    text = data.removeprefix(_BOM).decode("utf-8")
  except UnicodeDecodeError as error:
    raise errors.DataError(
        f"{source} starts as JSON, but byte {error.start:,} is not UTF-8; the file is damaged: "
        "copy it again") from None
  values = files.parse_json_values(text, str(source))
  _, first = next(values)
  if isinstance(first, dict) and "workload_graph" in first:
    _check_end(values, source)
    return _feeder(first, source)
  if isinstance(first, dict) and isinstance(first.get("nodes"), list) and "schema" in first:
    _check_end(values, source)
    metadata, nodes = pytorch_form.convert(first, source)
    return metadata, iter(nodes)
  if isinstance(first, dict) and set(first) <= {"version", "attr"}:
    return (_message(first, et_def_pb2.GlobalMetadata(), f"{source}: the metadata"),
            (_message(value, et_def_pb2.Node(), f"{source}: the node at character {position:,}")
             for position, value in values))
  raise errors.DataError(
      f"{source} is JSON, but no trace: it is {_shown(first)}; expected what chakra_jsonizer "
      "writes, an object with a list 'workload_graph', or a PyTorch execution trace with 'schema' "
      "and 'nodes'; pass such a file, or a binary trace (NAME.RANK.et)")


def write(output: BinaryIO, metadata: et_def_pb2.GlobalMetadata,
          nodes: Iterable[et_def_pb2.Node]) -> None:
  """Writes the form of the reference jsonizer."""
  output.write(json_format.MessageToJson(metadata).encode())
  for node in nodes:
    output.write(json_format.MessageToJson(node).encode())


def _check_end(values: Iterator[tuple[int, Any]], source: files.PathLike) -> None:
  for position, value in values:
    raise errors.DataError(
        f"{source}: expected the end of the file at character {position:,}, not {_shown(value)}; "
        "remove what follows the trace")


def _message(value: Any, message: Any, where: str) -> Any:
  if not isinstance(value, dict):
    raise errors.DataError(f"{where} is {_shown(value)}; expected an object; correct the file, or "
                           "write it again")
  try:
    return json_format.ParseDict(value, message)
  except (json_format.ParseError, ValueError, TypeError, OverflowError, AttributeError) as error:
    raise errors.DataError(
        f"{where} cannot be read: {escaping.shown(str(error), 300)}; expected what chakra_jsonizer "
        "writes; correct the file, or write it again") from None


def _feeder(value: dict[str, Any], source: files.PathLike) -> Parsed:
  metadata = et_def_pb2.GlobalMetadata()
  for key, content in value.items():
    if key != "workload_graph":
      _keep(metadata, key, content, str(source))
  entries = value["workload_graph"]
  if not isinstance(entries, list):
    raise errors.DataError(
        f"{source}: workload_graph is {_shown(entries)}; expected a list of nodes; correct the "
        "file, or write it again")
  return metadata, (_feeder_node(entry, f"{source}: workload_graph[{index}]")
                    for index, entry in enumerate(entries))


def _feeder_node(entry: Any, where: str) -> et_def_pb2.Node:
  if not isinstance(entry, dict):
    raise errors.DataError(f"{where} is {_shown(entry)}; expected an object; correct the file, or "
                           "write it again")
  fields: dict[str, Any] = {}
  rest: dict[str, Any] = {}
  for key, content in entry.items():
    field = _FEEDER_FIELDS.get(key.lower().replace("_", ""))
    if field in fields:
      raise errors.DataError(f"{where}: the key {escaping.quoted(key)} repeats another one; keep "
                             "one of them")
    if field is None:
      rest[key] = content
    elif content is not None:
      # Times may have fractions of a microsecond.
      fields[field] = round(content) if isinstance(content, float) and (
          field in _TIMES and math.isfinite(content)) else content
  for field in ("id", "type"):
    if field not in fields:
      raise errors.DataError(
          f"{where} has no key {'Id' if field == 'id' else 'NodeType'!r}; expected one; add it")
  node = _message(fields, et_def_pb2.Node(), where)
  for key, content in rest.items():
    _keep(node, key, content, where)
  return node


def _keep(owner: attributes.Owner, key: str, content: Any, where: str) -> None:
  """Stores the value of a key as an attribute; one that no kind fits, as its JSON text."""
  if content is None:
    return
  if key == "comm_type" and isinstance(content, str):
    named = node_kinds.collective_number(content.upper())
    content = content if named is None else named
  if "int" in attributes.SIMULATOR_KINDS.get(key, ""):
    content = _whole(content)
  items = content if isinstance(content, list) else [content]
  fits = bool(items) and isinstance(items[0], (bool, int, float, str)) and all(
      type(item) is type(items[0]) for item in items)
  if not fits:
    content = json.dumps(content)
  try:
    attributes.add(owner, key, content)  # Keys of JSON objects are unique.
  except errors.DataError as error:
    raise errors.DataError(f"{where}: the key {escaping.quoted(key)}: {error}") from None


def _whole(content: Any) -> Any:
  """A whole number that is written as 2e9 or "2000", as a number; another value as it is."""
  if isinstance(content, float) and content.is_integer():
    return int(content)
  if isinstance(content, str) and content.isascii() and content.isdecimal():
    return int(content)
  return content


def _shown(value: Any) -> str:
  if isinstance(value, dict):
    return "an object with the keys " + (
        ", ".join(map(escaping.quoted, list(value)[:6])) or "none")
  return f"a list of {len(value)}" if isinstance(value, list) else escaping.value(value, 40)
