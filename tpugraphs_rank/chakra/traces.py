"""Reads and writes Chakra execution traces (schema 0.0.4 and 1.0), one file for each rank.

A trace is read from the binary form, plain or compressed with gzip, or from JSON; the content
decides, not the file's name. The nodes are the protobuf messages themselves, so that attributes of
any kind and fields of later schemas survive reading and writing.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import gzip
import os
import pathlib
from typing import BinaryIO

from google.protobuf import message as protobuf

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import frames
from tpugraphs_rank.chakra import json_form
from tpugraphs_rank.hlo import varint

Node = et_def_pb2.Node
GlobalMetadata = et_def_pb2.GlobalMetadata

VERSION = "1.0.0"
# What `read` keeps in memory: nodes, bytes of their messages, dependencies and attributes.
MAX_NODES = 2_000_000
MAX_BYTES = 512 << 20
MAX_DEPENDENCIES = 50_000_000
MAX_ATTRIBUTES = 50_000_000
# How many nodes, dependencies and attributes any file may hold, and the fewest bytes of a larger
# one for each node; for each of the others one. A few bytes of a compressed file can hold
# thousands of nodes; real nodes take a hundred bytes, and compressed about twenty.
FREE_NODES = 1 << 17
FREE_PARTS = 1 << 20
BYTES_PER_NODE = 12
# How the text of programs starts.
_PROGRAMS = (b"HloModule", b"module @")


@dataclasses.dataclass
class Trace:
  """The work of one rank.

  Attributes:
    metadata: version and attributes of the whole trace.
    nodes: the operations, in the order of the file. `id` is unique in a sound trace, and
      `data_deps` and `ctrl_deps` hold ids; reading checks neither (`graphs` does).
  """

  metadata: GlobalMetadata = dataclasses.field(
      default_factory=lambda: GlobalMetadata(version=VERSION))
  nodes: list[Node] = dataclasses.field(default_factory=list)


def read(path: files.PathLike) -> Trace:
  """Reads a whole trace.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: the file is damaged, cut off or no trace; the message names the byte.
    LimitError: the trace needs more memory than the limits of this module allow.
  """
  with opened(path) as (metadata, nodes):
    return Trace(metadata, list(_limited(nodes, path)))


def iterate(path: files.PathLike) -> Iterator[Node]:
  """The nodes of a trace, one after another; in memory is one node, and the text of JSON.

  Raises: as `read`.
  """
  with opened(path) as (_, nodes):
    yield from nodes


@contextlib.contextmanager
def opened(path: files.PathLike) -> Iterator[tuple[GlobalMetadata, Iterator[Node]]]:
  """Opens a trace: its metadata, and its nodes one after another.

  Raises: as `read`, also from the iterator.
  """
  with frames.open_content(path) as (content, unit, size):
    if json_form.is_json(frames.peek(content, path)):
      yield json_form.parse(content, path)
      return
    messages = frames.messages(content, path, unit, size)
    metadata = _metadata(path, unit, messages)
    yield metadata, _nodes(path, unit, messages)


def _metadata(path: files.PathLike, unit: str,
              messages: Iterator[tuple[int, bytes]]) -> GlobalMetadata:
  try:
    position, data = next(messages)
  except errors.DataError as error:
    other = _other_kind(path)
    if other:
      raise errors.DataError(f"{path} is no Chakra trace: {other}") from error
    raise
  except StopIteration:
    raise errors.DataError(f"{path} is a compressed file without content; expected a Chakra trace; "
                           "write or copy it again") from None
  try:
    result = GlobalMetadata.FromString(data)
  except protobuf.DecodeError:
    result = None
  if result is None or _is_other(data):
    raise errors.DataError(
        f"{path}: the first message, at {unit} {position:,}, is not the metadata of a Chakra "
        "trace (GlobalMetadata); " + (_other_kind(path) or (
            "pass a file written by a Chakra tool (NAME.RANK.et), or its JSON form")))
  return result


def _is_other(data: bytes) -> bool:
  """Whether a message that parses as metadata is something else, such as a node."""
  known = GlobalMetadata.FromString(data)
  known.DiscardUnknownFields()
  if known.ByteSize() == len(data):
    return False
  if not known.ByteSize():
    return True
  try:
    return Node.FromString(data).type != et_def_pb2.INVALID_NODE
  except protobuf.DecodeError:
    return False


def _nodes(path: files.PathLike, unit: str,
           messages: Iterator[tuple[int, bytes]]) -> Iterator[Node]:
  for index, (position, data) in enumerate(messages):
    try:
      yield Node.FromString(data)
    except protobuf.DecodeError:
      other = "" if index else _other_kind(path)
      if other:
        raise errors.DataError(f"{path} is no Chakra trace: {other}") from None
      raise errors.DataError(
          f"{path}: the message at {unit} {position:,} (node {index} in the file's order) is no "
          "Chakra node; the file is damaged: copy it again, or write it again") from None


def _limited(nodes: Iterable[Node], path: files.PathLike) -> Iterator[Node]:
  count = size = dependencies = listed = 0
  stored = os.stat(path).st_size
  most_nodes = min(MAX_NODES, max(FREE_NODES, stored // BYTES_PER_NODE))
  most_parts = max(FREE_PARTS, stored)
  for node in nodes:
    count += 1
    size += node.ByteSize()
    dependencies += len(node.data_deps) + len(node.ctrl_deps)
    listed += len(node.attr)
    for value, limit, what in (
        (count, most_nodes, "nodes"), (size, MAX_BYTES, "bytes of nodes"),
        (dependencies, min(MAX_DEPENDENCIES, most_parts), "dependencies"),
        (listed, min(MAX_ATTRIBUTES, most_parts), "attributes")):
      if value > limit:
        raise errors.LimitError(
            f"{path} has more than {limit:,} {what}, the limit for a trace of {stored:,} bytes "
            "that is read as a whole; unpack it if it is compressed (gunzip), or divide the trace")
    yield node


def write(path: files.PathLike, trace: Trace, compress: bool = False) -> None:
  """Writes a trace, atomically; as JSON if the name ends in `.json` or `.json.gz`.

  Args:
    path: of the file; by convention `<prefix>.<rank>.et`.
    trace: what to write.
    compress: compress with gzip, which the reference tools also read. Equal traces give equal
      files.

  Raises:
    DataError: a node cannot be written so that readers take it.
    OutputError: the file cannot be written.
  """
  write_nodes(path, trace.metadata, trace.nodes, compress)


def write_nodes(path: files.PathLike, metadata: GlobalMetadata, nodes: Iterable[Node],
                compress: bool = False) -> None:
  """Writes a trace whose nodes come one after another, and so need not be in memory together.

  Args and raises: as `write`.
  """
  path = pathlib.Path(path)
  with files.atomic_write(path) as file:
    with contextlib.ExitStack() as stack:
      output: BinaryIO = file
      if compress:
        output = stack.enter_context(  # type: ignore[assignment]
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
      if path.name.removesuffix(".gz").endswith(".json"):
        json_form.write(output, metadata, nodes)
        return
      _write_message(output, metadata, path, "the metadata")
      for node in nodes:
        _write_message(output, node, path, f"node {node.id}")


def _write_message(output: BinaryIO, message: Node | GlobalMetadata, path: files.PathLike,
                   what: str) -> None:
  data = message.SerializeToString(deterministic=True)
  if not data and isinstance(message, Node):
    raise errors.DataError(
        f"cannot write {path}: {what} has no name, type or other content, and readers take an "
        "empty message for the end of the file; give it a type")
  if len(data) > frames.MAX_MESSAGE_BYTES:
    raise errors.DataError(
        f"cannot write {path}: {what} has {len(data):,} bytes; the limit for a message is "
        f"{frames.MAX_MESSAGE_BYTES:,}; shorten its texts")
  output.write(varint.encoded(len(data)) + data)


def _other_kind(path: files.PathLike) -> str:
  """What a file is that is no trace, and the remedy; "" for a file of no kind that is known."""
  with frames.open_content(path) as (content, _, _):
    start = frames.peek(content, path)
  if start[257:262] == b"ustar":
    return "it is a tar archive: unpack it (tar -xf) and pass the trace in it"
  if start.startswith(b"\x00\x05\x16\x07"):
    return ("it is a companion file of macOS (AppleDouble): pass the file of the same name without "
            "._, or the folder")
  if start.startswith(b"PK\x03\x04"):
    if b".npy" in start:
      return ("it is an .npz file: " + commands.command("chakra export", "--graphs", str(path))
              + " writes its graphs as traces")
    return "it is a zip archive: unpack it and pass the trace in it"
  name = pathlib.Path(path).name
  if ".hlo" in name or name.endswith(".mlir") or start.lstrip().startswith(_PROGRAMS):
    return ("it looks like a program: " + commands.command("chakra convert", "--input", str(path))
            + " turns programs into traces")
  return ""
