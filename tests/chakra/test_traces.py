"""Trace files: what is written is read again; damaged files give errors that name the place."""

import gzip
import json
import pathlib
import struct
import time
import tracemalloc

from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import settings
import pytest

from tests import testdata
from tests.chakra import samples
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import attributes
from tpugraphs_rank.chakra import et_def_pb2
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.hlo import varint

KINDS = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32",
         "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes")


def _saved(folder: pathlib.Path, data: bytes, name: str = "job.0.et") -> pathlib.Path:
  path = folder / name
  path.write_bytes(data)
  return path


def _bytes(trace: traces.Trace) -> bytes:
  """A trace file, written without the code under test."""
  result = b""
  for message in (trace.metadata, *trace.nodes):
    data = message.SerializeToString()
    length = len(data)
    while length >= 128:
      result += bytes([length % 128 + 128])
      length //= 128
    result += bytes([length]) + data
  return result


# ---- the schema ----------------------------------------------------------------------------------


def test_the_field_numbers_are_the_public_ones():
  attribute = et_def_pb2.AttributeProto.DESCRIPTOR.fields_by_name
  expected = {"name": 1, "doc_string": 2}
  for index, kind in enumerate(KINDS):
    expected |= {f"{kind}_val": 3 + 2 * index, f"{kind}_list": 4 + 2 * index}
  assert {name: field.number for name, field in attribute.items()} == expected
  for kind in KINDS:
    number = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    assert attribute[f"{kind}_val"].type == number
    values = attribute[f"{kind}_list"].message_type.fields_by_name["values"]
    assert (values.number, values.type, values.label) == (1, number, values.LABEL_REPEATED)
  numbers = lambda message: {
      field.name: field.number for field in message.DESCRIPTOR.fields}
  assert numbers(et_def_pb2.Node) == {
      "id": 1, "name": 2, "type": 3, "ctrl_deps": 4, "data_deps": 5, "start_time_micros": 6,
      "duration_micros": 7, "inputs": 8, "outputs": 9, "attr": 10}
  assert numbers(et_def_pb2.GlobalMetadata) == {"version": 1, "attr": 2}
  assert numbers(et_def_pb2.IOInfo) == {"values": 1, "shapes": 2, "types": 3}
  assert dict(et_def_pb2.NodeType.items()) == {
      "INVALID_NODE": 0, "METADATA_NODE": 1, "MEM_LOAD_NODE": 2, "MEM_STORE_NODE": 3,
      "COMP_NODE": 4, "COMM_SEND_NODE": 5, "COMM_RECV_NODE": 6, "COMM_COLL_NODE": 7}


def test_a_file_written_by_hand():
  # Metadata "1"; a node with id 5, name "a", type COMP, dependencies 3 and 300 (packed).
  data = bytes([3, 0x0A, 1, 0x31, 12, 0x08, 5, 0x12, 1, 0x61, 0x18, 4, 0x2A, 3, 3, 0xAC, 2])
  trace = traces.Trace(traces.GlobalMetadata(version="1"), [
      traces.Node(id=5, name="a", type=et_def_pb2.COMP_NODE, data_deps=[3, 300])])
  assert _bytes(trace) == data


# ---- reading and writing -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job.0.et", "job.0.json", "job", "job.0.et.gz", "job.json.gz"])
def test_all_kinds_survive_every_form(tmp_path, name):
  trace = samples.every_kind()
  traces.write(tmp_path / name, trace, compress=name.endswith(".gz"))
  again = traces.read(tmp_path / name)
  assert again == trace
  assert {attributes.kind(item) for item in again.nodes[0].attr} == set(attributes.KINDS)
  assert list(traces.iterate(tmp_path / name)) == trace.nodes
  if name == "job.0.et":
    assert (tmp_path / name).read_bytes() == _bytes(trace)


@settings(max_examples=30)
@given(samples.acyclic())
def test_any_trace_survives(tmp_path_factory, trace):
  path = tmp_path_factory.mktemp("any") / "job.0.et"
  for compress in (False, True):
    traces.write(path, trace, compress)
    assert traces.read(path) == trace


def test_writing_is_the_same_every_time(tmp_path):
  for name in ("a.et", "b.et"):
    traces.write(tmp_path / name, samples.every_kind(), compress=True)
  assert (tmp_path / "a.et").read_bytes() == (tmp_path / "b.et").read_bytes()


def test_fields_of_later_schemas_survive(tmp_path):
  node = samples.node(1).SerializeToString() + bytes([0xA2, 0x06, 2]) + b"ab"  # Field 100.
  known = samples.trace()
  path = _saved(tmp_path, _bytes(known) + bytes([len(node)]) + node)
  trace = traces.read(path)
  assert trace.nodes[0].id == 1
  traces.write(tmp_path / "again.et", trace)
  assert (tmp_path / "again.et").read_bytes() == path.read_bytes()


def test_metadata_whose_length_looks_like_json(tmp_path):
  # A length of 123 is "{", and the tag of the version is a line break.
  trace = samples.trace(samples.node(1), version="v" * 121)
  path = _saved(tmp_path, _bytes(trace))
  assert path.read_bytes()[:2] == b"{\n"
  assert traces.read(path) == trace


def test_the_jsonizers_form_as_the_reference_writes_it(tmp_path):
  text = ('{\n  "version": "0.0.4"\n}{\n  "id": "18446744073709551615",\n  "name": "a",\n'
          '  "type": "COMP_NODE",\n  "dataDeps": [\n    "3"\n  ],\n  "attr": [\n    {\n'
          '      "name": "is_cpu_op",\n      "boolVal": false\n    }\n  ]\n}')
  expected = samples.trace(samples.node(2 ** 64 - 1, 3, name="a", is_cpu_op=False),
                           version="0.0.4")
  assert traces.read(_saved(tmp_path, text.encode())) == expected
  traces.write(tmp_path / "job.json", expected)
  assert (tmp_path / "job.json").read_text() == text


def test_the_feeders_form(tmp_path):
  value = {"workload_graph": [
      {"Id": 3, "Name": "a", "NodeType": 4, "data_deps": [], "runtime": 5, "is_cpu_op": True,
       "tensor_size": 8, "extra": {"b": [1]}, "nothing": None},
      {"id": 4, "name": "b", "type": "COMM_COLL_NODE", "ctrlDeps": [3], "data_deps": [3],
       "comm_type": "ALL_GATHER", "comm_size": 64, "involved_dim": [True, False]}], "ngpus": 8}
  trace = traces.read(_saved(tmp_path, json.dumps(value).encode()))
  first = samples.node(3, name="a", duration=5, is_cpu_op=True, tensor_size=8)
  attributes.put(first, "extra", '{"b": [1]}')
  assert trace.nodes == [first, samples.node(
      4, 3, name="b", kind=et_def_pb2.COMM_COLL_NODE, ctrl_deps=(3,), comm_type=2, comm_size=64,
      involved_dim=[True, False])]
  assert attributes.as_dict(trace.metadata) == {"ngpus": 8}


def test_numbers_of_the_feeders_form_that_are_no_plain_integers(tmp_path):
  value = {"workload_graph": [{"Id": 1, "Name": "a", "NodeType": 4, "runtime": 12.6,
                               "num_ops": 2e9, "tensor_size": "64", "share": 0.5}]}
  first = samples.node(1, name="a", duration=13, num_ops=2 * 10 ** 9, tensor_size=64, share=0.5)
  assert traces.read(_saved(tmp_path, json.dumps(value).encode())).nodes == [first]


# ---- damaged files -------------------------------------------------------------------------------


def test_every_truncation_is_an_error_that_names_the_byte_or_a_shorter_trace(tmp_path):
  trace = samples.training_step()
  data = _bytes(trace)
  ends = {}
  for count in range(len(trace.nodes) + 1):
    ends[len(_bytes(traces.Trace(trace.metadata, trace.nodes[:count])))] = count
  for cut in range(1, len(data)):
    path = _saved(tmp_path, data[:cut])
    if cut in ends:
      assert traces.read(path).nodes == trace.nodes[:ends[cut]]
      continue
    with pytest.raises(errors.DataError) as caught:
      traces.read(path)
    place = max((end for end in ends if end < cut), default=0)
    assert str(path) in str(caught.value)
    # Where the length is cut itself, the message names the end of the file.
    assert f"byte {place:,}" in str(caught.value) or f"byte {cut:,}" in str(caught.value)


def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path):
  data = gzip.compress(_bytes(samples.training_step()))
  for cut in range(1, len(data)):
    path = _saved(tmp_path, data[:cut])
    with pytest.raises(errors.DataError):
      traces.read(path)


def test_every_truncation_of_json_is_an_error_or_a_shorter_trace(tmp_path):
  traces.write(tmp_path / "job.json", samples.trace(samples.node(1), samples.node(2, 1)))
  data = (tmp_path / "job.json").read_bytes()
  lengths = set()
  for cut in range(1, len(data)):
    try:
      lengths.add(len(traces.read(_saved(tmp_path, data[:cut])).nodes))
    except errors.DataError as error:
      assert "job.0.et" in str(error)
  assert lengths == {0, 1}


@pytest.mark.parametrize("length", [1 << 14, 1 << 26, 1 << 31, (1 << 63) + 5, (1 << 64) - 1])
@pytest.mark.parametrize("compress", [False, True])
def test_absurd_lengths_take_no_memory(tmp_path, length, compress):
  good = _bytes(samples.trace(samples.node(1)))
  data = good + varint.encoded(length) + b"rest"
  path = _saved(tmp_path, gzip.compress(data) if compress else data)
  tracemalloc.start()
  try:
    with pytest.raises(errors.DataError, match=f"byte {len(good)} "):
      traces.read(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
  finally:
    tracemalloc.stop()


def test_a_length_of_too_many_bytes(tmp_path):
  path = _saved(tmp_path, _bytes(samples.trace()) + b"\xff" * 11)
  with pytest.raises(errors.DataError, match="no varint"):
    traces.read(path)


def test_a_compressed_bomb_ends_at_the_limit(tmp_path, monkeypatch):
  monkeypatch.setattr(traces, "MAX_NODES", 1000)
  empty = _bytes(samples.trace()) + bytes([2, 0x18, 4]) * 1_000_000
  with pytest.raises(errors.LimitError, match="1,000 nodes"):
    traces.read(_saved(tmp_path, gzip.compress(empty)))


def test_compressed_files_become_no_larger_than_real_ones(tmp_path):
  start = _bytes(samples.trace(samples.node(4)))
  # 5 million attributes without content, in a few kilobytes.
  path = _saved(tmp_path, gzip.compress(start + b"\x80\xad\xe2\x04" + b"\x52\x00" * 5_000_000))
  with pytest.raises(errors.LimitError, match="unpacks to more than 8,388,608 bytes.*gunzip"):
    traces.read(path)
  # JSON too.
  path = _saved(tmp_path, gzip.compress(b'{"workload_graph": [' + b"{}," * 3_000_000 + b"{}]}"))
  with pytest.raises(errors.LimitError, match="unpacks to more than"):
    traces.read(path)


@pytest.mark.parametrize("count, added, what", [
    (150_000, b"", "131,072 nodes"),
    (30_000, samples.node(0, *range(50)).SerializeToString(), "1,048,576 dependencies"),
    (30_000, b"\x52\x00" * 50, "1,048,576 attributes")])
def test_small_files_hold_no_more_than_other_files_of_their_size(tmp_path, count, added, what):
  data = samples.node(4).SerializeToString() + added
  several = (varint.encoded(len(data)) + data) * count
  path = _saved(tmp_path, gzip.compress(_bytes(samples.trace()) + several))
  with pytest.raises(errors.LimitError, match=f"more than {what}, the limit for a trace of"):
    traces.read(path)


def test_many_attributes_take_no_quadratic_time(tmp_path):
  many = {f"k{index}": index for index in range(30_000)}
  start = time.process_time()
  path = _saved(tmp_path, json.dumps(
      {"workload_graph": [{"Id": 1, "NodeType": 4, **many}], **many}).encode())
  trace = traces.read(path)
  assert len(trace.nodes[0].attr) == len(trace.metadata.attr) == 30_000
  path = _saved(tmp_path, json.dumps({"schema": "1", "nodes": [
      {"id": 1, "name": "a", "attrs": [{"name": name, "value": 1} for name in many]}]}).encode())
  assert len(traces.read(path).nodes[0].attr) == 30_001
  assert time.process_time() - start < 8  # Two seconds, with room for a busy machine.


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (gzip.compress(b"", mtime=0), "compressed file without content"),
    (b"hello world, this is text\n", "job.0.et"),
    (b"{}", "no nodes|nodes"),
    (b'{"a": 1}', "the keys 'a'"),
    (b"[1, 2]", "a list of 2"),
    (b'{"version": "1"}{"id": "x"}', "character 16"),
    (b'{"version": "1"}{"id": "1", "typo": 2}', "typo"),
    (b'{"version": "1"}[1]', "a list of 1"),
    (b'{"version": "1"}{"id": "1", "id": "2"}', "occurs twice"),
    (b'{"version": "1"}{"id": -1}', "character 16"),
    (b'{"version": "1"} x', "line 1 column 18"),
    (b'{"version": ' + b"[" * 100_000, "nested more than"),
    (b'{"version": 1' + b"0" * 5000 + b"}", "digits"),
    (b'{"version": "\xff"}', "not UTF-8"),
    (b'{"workload_graph": 3}', "expected a list"),
    (b'{"workload_graph": [3]}', r"workload_graph\[0\] is 3"),
    (b'{"workload_graph": [{"Id": 1}]}', "no key 'NodeType'"),
    (b'{"workload_graph": [{"Id": 1, "id": 2, "NodeType": 4}]}', "repeats another"),
    (b'{"workload_graph": [{"Id": 1, "NodeType": 4, "num_ops": "x"}]}', "num_ops"),
    (b'{"workload_graph": []} 5', "expected the end of the file"),
    (b"PK\x03\x04" + bytes(60), "zip archive|cut off"),
    (b"\x00\x05\x16\x07\x00\x02" + bytes(60), "companion file of macOS"),
    (bytes([5, 0x08, 3, 0x18, 4, 0x12]) + b"\0", "job.0.et"),
])
def test_other_files_are_refused(tmp_path, content, message):
  path = _saved(tmp_path, content)
  if content == b"{}":  # Empty metadata of the jsonizer.
    assert not traces.read(path).nodes
    return
  with pytest.raises(errors.DataError, match=message):
    traces.read(path)


def test_a_file_that_starts_with_a_node(tmp_path):
  data = samples.node(3, 1).SerializeToString()
  with pytest.raises(errors.DataError, match="is not the metadata"):
    traces.read(_saved(tmp_path, bytes([len(data)]) + data))


def test_a_tar_archive(tmp_path):
  import io
  import tarfile
  output = io.BytesIO()
  with tarfile.open(fileobj=output, mode="w:gz") as archive:
    archive.addfile(tarfile.TarInfo("data/chakra.0.et"))
  with pytest.raises(errors.DataError, match="unpack it"):
    traces.read(_saved(tmp_path, output.getvalue()))


def test_paths_that_are_no_files(tmp_path):
  for path, message in ((tmp_path, "is a folder"), (pathlib.Path("/dev/zero"), "regular file")):
    with pytest.raises(errors.DataError, match=message):
      traces.read(path)
  for path in (tmp_path / "none.et", "a\0b"):
    with pytest.raises(errors.MissingDataError):
      traces.read(path)


def test_a_node_that_readers_take_for_the_end_is_not_written(tmp_path):
  with pytest.raises(errors.DataError, match="give it a type"):
    traces.write(tmp_path / "job.0.et", samples.trace(samples.node(4), traces.Node()))
  assert not list(tmp_path.iterdir())


def test_memory_of_iterating_is_that_of_one_node(tmp_path):
  path = tmp_path / "long.0.et"
  block = samples.node(5, *range(1000)).SerializeToString()
  data = _bytes(samples.trace()) + (varint.encoded(len(block)) + block) * 3000
  path.write_bytes(data)
  assert path.stat().st_size > 5 << 20
  tracemalloc.start()
  try:
    assert sum(len(node.data_deps) for node in traces.iterate(path)) == 3_000_000
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize("compress", [False, True])
def test_memory_of_writing_is_that_of_one_node(tmp_path, compress):
  path = tmp_path / "long.0.et"
  nodes = (samples.node(index, *range(1000)) for index in range(1000, 1300))
  tracemalloc.start()
  try:
    traces.write_nodes(path, traces.GlobalMetadata(), nodes, compress)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()
  assert [node.id for node in traces.iterate(path)] == list(range(1000, 1300))


# ---- attributes ----------------------------------------------------------------------------------


def test_attributes():
  node = samples.node(1, num_ops=5, is_cpu_op=False, involved_dim=[True])
  assert attributes.as_dict(node) == {"num_ops": 5, "is_cpu_op": False, "involved_dim": [True]}
  assert attributes.kind(attributes.find(node, "num_ops")) == "int64_val"
  attributes.put(node, "num_ops", 7)
  attributes.put(node, "note", "text")
  attributes.put(node, "shares", [0.5, 1.5])
  attributes.put(node, "none", [], "int32_list")
  assert attributes.get(node, "num_ops") == 7
  assert [item.name for item in node.attr] == [
      "num_ops", "is_cpu_op", "involved_dim", "note", "shares", "none"]
  assert attributes.get(node, "none") == []
  assert attributes.get(node, "missing", 3) == 3
  assert attributes.remove(node, "num_ops") and not attributes.remove(node, "num_ops")
  assert attributes.get(node, "num_ops") is None
  before = node.SerializeToString(deterministic=True)
  for name, value, kind in (("comm_size", 2 ** 63, None), ("note", 5, "string_val"),
                            ("note", [1, "a"], "int32_list"), ("note", 3, "no_kind"),
                            ("note", {}, None)):
    with pytest.raises(errors.DataError, match=f"'{name}'"):
      attributes.put(node, name, value, kind)
  assert node.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kind, value, expected", [
    ("double_val", 3.7, 3), ("string_val", "12", 12), ("string_val", "x", None),
    ("bool_val", True, 1), ("uint64_val", 2 ** 63, 2 ** 63), ("double_val", float("inf"), None),
    ("bytes_val", b"1", None), ("int64_list", [4], None), ("string_val", "nan", None)])
def test_numbers_of_any_kind(kind, value, expected):
  node = traces.Node()
  attributes.put(node, "num_ops", value, kind)
  assert attributes.number(node, "num_ops") == expected


def test_the_last_of_equal_names_counts_as_for_simulators():
  node = traces.Node()
  for value in (1, 2):
    node.attr.append(et_def_pb2.AttributeProto(name="num_ops", int64_val=value))
  assert attributes.get(node, "num_ops") == 2


# ---- real traces ---------------------------------------------------------------------------------


@testdata.required
def test_the_real_trace(tmp_path):
  import tarfile
  with tarfile.open(testdata.path("chakra/feeder_tests_trace.tar.gz")) as archive:
    member = next(item for item in archive.getmembers() if item.name.endswith(".et"))
    data = archive.extractfile(member).read()
  path = _saved(tmp_path, data)
  start = time.process_time()
  trace = traces.read(path)
  assert time.process_time() - start < 5
  assert len(trace.nodes) == 3664
  assert sum(len(node.data_deps) for node in trace.nodes) == 181_878
  traces.write(tmp_path / "again.et", trace)
  assert (tmp_path / "again.et").read_bytes() == data
  assert struct.unpack("<B", data[:1])[0] == trace.metadata.ByteSize()


@pytest.mark.parametrize("key", [*attributes.SIMULATOR_KINDS, "other", "runtime", "Id", "NodeType"])
def test_absurd_numbers_in_json_are_read_or_an_error(tmp_path, key):
  path = tmp_path / "a.json"
  for text in ("18446744073709551616", "-18446744073709551617", "1e400", "1e300", '"1e300"',
               "[18446744073709551616]", "[true, 1]", "null", "{}"):
    fields = {"Id": "0", "NodeType": "4", "name": '"a"', key: text}
    entry = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    path.write_text('{"workload_graph": [{' + entry + '}]}')
    try:
      assert len(graphs_lib.read(path).ids) == 1
    except errors.DataError as error:
      assert "a.json" in str(error)
