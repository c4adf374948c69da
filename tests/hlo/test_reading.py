"""Detection of the message type of raw files, and rejection of other files."""

import bz2
import gzip
import lzma
import os
import pathlib

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank import registries
from tpugraphs_rank.hlo import compression
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import printed_order
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

from . import modules

FIXTURES = pathlib.Path(__file__).parent / "data"


def _messages(module):
  """Each kind of file around one program."""
  tile = modules.measured([modules.tile_run(is_default=True), modules.tile_run()], module)
  nodes = [[[0, 1]], []]
  layout = modules.measured(
      [modules.layout_run(nodes, is_default=True)], module, nodes=[0, 1])
  return {
      "HloModuleProto": module,
      "HloProto": hlo_pb2.HloProto(hlo_module=module),
      "ModuleTuningData": layout,
      "TuningData": tuning_pb2.TuningData(modules=[tile, tile]),
  }


@settings(max_examples=30, deadline=None)
@given(program=modules.programs(), name=st.text(max_size=9))
def test_every_kind_is_recognised(program, name):
  program.name = name
  in_order = hlo_pb2.HloModuleProto.FromString(program.SerializeToString())
  printed_order.sort_computations(in_order)
  for kind, message in _messages(program).items():
    raw = reading.parse_raw(message.SerializeToString(), "x.pb")
    assert (raw.kind, raw.source) == (kind, "x.pb")
    assert raw.has_runs == kind.endswith("TuningData")
    # Measured layouts refer to the order of the file.
    expected = program if kind.endswith("TuningData") else in_order
    assert [m.module for m in raw.modules] == [expected] * (2 if kind == "TuningData" else 1)
    assert [len(m.runs) for m in raw.modules] == {
        "ModuleTuningData": [1], "TuningData": [2, 2]}.get(kind, [0])


def test_one_kernel_with_one_run_is_recognised():
  one = modules.measured([modules.tile_run(is_default=True)])
  assert reading.parse_raw(one.SerializeToString()).kind == "ModuleTuningData"
  several = tuning_pb2.TuningData(modules=[one])
  assert reading.parse_raw(several.SerializeToString()).kind == "TuningData"


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("kind", ["HloProto", "ModuleTuningData", "TuningData"])
def test_a_file_cut_anywhere_is_refused_or_loses_whole_runs_only(kind, cut):
  message = _messages(modules.tiny())[kind]
  data = message.SerializeToString()
  data = data[:int(cut * len(data))]
  try:
    raw = reading.parse_raw(data, "x.pb")
  except errors.DataError as error:
    assert "x.pb" in str(error)
  else:
    # A cut between two entries cannot be seen here; no program is ever half read.
    assert all(m.module == modules.tiny() for m in raw.modules)


def test_a_program_cut_between_computations_is_refused():
  module = hlo_pb2.HloModuleProto(
      name="m", entry_computation_name="main", entry_computation_id=2, computations=[
          hlo_pb2.HloComputationProto(
              name=name, id=number, root_id=1,
              instructions=[hlo_pb2.HloInstructionProto(id=1, opcode="parameter")])
          for name, number in (("fused", 1), ("main", 2))])
  reading.parse_raw(module.SerializeToString())
  whole = module.SerializeToString()
  cut = whole.index(b"\x0a\x04main")  # The name that opens the second computation...
  cut -= 2                            # ... after its tag and length.
  with pytest.raises(errors.DataError, match="x.pb: module 'm' lacks its entry computation 'main'"):
    reading.parse_raw(whole[:cut], "x.pb")


@pytest.mark.parametrize("data,message", [
    (b"", "is empty"),
    (b"\xef\xbb\xbf \n", "is empty"),
    (b"\x00\x01\x02garbage\xff\xfe", "is cut off or has an unknown format"),
    (b"hello world, this is text", "is text, but neither HLO nor StableHLO"),
    (b"\x0a\x03abc", "is cut off or has an unknown format"),
    (b"\x1f\x8b\x08\x00", "is cut off: its gzip data does not end"),
])
def test_other_content(data, message):
  with pytest.raises(errors.DataError, match="(?s)x.pb " + message) as info:
    reading.parse_raw(data, "x.pb")
  assert message.startswith(("is empty", "is cut off:")) or (
      "expected an HLO program (protobuf or text), a StableHLO program, or raw data" in
      str(info.value))


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_compressed_files_of_every_kind(compress):
  messages = {kind: message.SerializeToString()
              for kind, message in _messages(modules.tiny()).items()}
  messages["HLO text"] = b"HloModule m\nENTRY e {\n  p = f32[] parameter(0)\n}\n"
  for kind, data in messages.items():
    assert reading.parse_raw(compress(data), "x") == reading.parse_raw(data, "x")
    assert reading.parse_raw(compress(data), "x").kind == kind


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_hlo_text(encoding):
  text = "\n// A comment.\nHloModule m\r\nENTRY e {\r\n  ROOT p = f32[2] parameter(0)\r\n}\r\n"
  raw = reading.parse_raw(text.encode(encoding), "x.txt")
  assert (raw.kind, raw.has_runs, raw.modules[0].module.name) == ("HLO text", False, "m")
  with pytest.raises(errors.DataError, match="x.txt: line 2, column 1 of the HLO text"):
    reading.parse_raw("HloModule m\n".encode(encoding), "x.txt")


def test_snapshots():
  snapshot = hlo_pb2.HloSnapshot(
      hlo=hlo_pb2.HloProto(hlo_module=modules.tiny()), execution_platform="Host")
  # Fields 2 and 3 are the arguments and the result.
  data = snapshot.SerializeToString() + b"\x12\x02\x10\x0b\x1a\x02\x10\x0b"
  raw = reading.parse_raw(data, "x.pb")
  assert (raw.kind, raw.has_runs, len(raw.modules)) == ("HloSnapshot", False, 1)
  assert raw.modules[0].module == modules.tiny() and not raw.modules[0].runs


def test_unoptimized_snapshots():
  # The program is field 1, as in `HloProto`; field 2 has the arguments of each partition.
  program = hlo_pb2.HloProto(hlo_module=modules.tiny()).SerializeToString()
  raw = reading.parse_raw(program + b"\x12\x04\x0a\x02\x10\x0b", "x.pb")
  assert (raw.has_runs, len(raw.modules), raw.modules[0].module) == (False, 1, modules.tiny())


@testdata.required
def test_a_real_snapshot():
  raw = reading.read_raw(testdata.path("field_cases") / "hlo_snapshot.pb")
  assert raw.kind == "HloSnapshot"
  [module] = raw.modules
  assert [i.opcode for i in module.module.computations[0].instructions] == [
      "parameter", "parameter", "dot"]


@pytest.mark.parametrize("content", [
    b"module @jit_f {\n}", b"\xef\xbb\xbf#loc = loc(unknown)\nmodule {\n}", b"ML\xefR\x01"])
def test_stablehlo_goes_to_the_converter(content, monkeypatch):
  received = []

  def convert(data, source):
    received.append((data, source))
    return modules.tiny().SerializeToString()

  monkeypatch.setitem(registries.CONVERTERS._values, "stablehlo", convert)
  raw = reading.parse_raw(content, "x.mlir")
  assert (raw.kind, raw.has_runs, raw.modules[0].module) == ("StableHLO", False, modules.tiny())
  # The compiler does not expect a byte order mark.
  assert received == [(content.removeprefix(b"\xef\xbb\xbf"), "x.mlir")]


def test_stablehlo_without_a_program(monkeypatch):
  monkeypatch.setitem(registries.CONVERTERS._values, "stablehlo", lambda data, source: b"")
  with pytest.raises(errors.DataError, match="x.mlir is MLIR without a program"):
    reading.parse_raw(b"module {}", "x.mlir")


@pytest.mark.parametrize("name,stem", [
    ("f.hlo.pb", "f.hlo"), ("f.hlo.pb.gz", "f.hlo"), ("a/f.pb.xz", "f"), ("f.txt", "f"),
    ("m.1.f.txt", "m.1.f"), ("f", "f"), (".gz", ".gz"), ("f.mlir.bz2", "f")])
def test_stems(name, stem):
  assert reading.stem(name) == stem


def test_folders_and_special_files_are_refused(tmp_path):
  with pytest.raises(errors.MissingDataError, match="it is a folder; expected a file"):
    reading.read_raw(tmp_path)
  (tmp_path / "saved_model.pb").touch()
  with pytest.raises(errors.MissingDataError, match="it is the folder of a TensorFlow SavedModel"):
    reading.read_raw(tmp_path)
  os.mkfifo(tmp_path / "pipe")
  with pytest.raises(errors.MissingDataError, match="pipe: it is a pipe or device"):
    reading.read_raw(tmp_path / "pipe")
  with pytest.raises(errors.MissingDataError, match="/dev/zero: it is a pipe or device"):
    reading.read_raw("/dev/zero")


def test_a_file_above_the_limit(tmp_path, monkeypatch):
  monkeypatch.setattr(compression, "MAX_BYTES", 1 << 20)
  path = tmp_path / "big.pb"
  path.write_bytes(bytes((3 << 20) + 1))
  with pytest.raises(errors.LimitError, match="big.pb has 3 MiB; the limit for a program is 1 MiB"):
    reading.read_raw(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(data):
  with pytest.raises(errors.DataError):
    reading.parse_raw(data)


def test_missing_files(tmp_path):
  with pytest.raises(errors.MissingDataError, match="no file .*nothing.pb"):
    reading.read_raw(tmp_path / "nothing.pb")
  with pytest.raises(errors.MissingDataError, match="cannot read"):
    reading.read_raw(tmp_path)


@pytest.mark.parametrize("name,kind,opcodes,edges,shapes", [
    ("jax_row_sums.pb", "HloModuleProto",
     ["parameter", "parameter", "add", "parameter", "tanh", "constant", "reduce"],
     [[2, 0], [2, 1], [4, 3], [6, 2], [6, 4], [6, 5]], {3: [4, 3], 4: [4, 3], 6: [4]}),
    ("jax_row_sums.cpu_after_optimizations.hlo.pb", "HloProto",
     ["parameter", "parameter", "add", "parameter", "tanh", "constant", "reduce", "parameter",
      "fusion"],
     [[2, 0], [2, 1], [4, 3], [6, 2], [6, 4], [6, 5], [8, 6], [8, 7]],
     {3: [4, 3], 4: [4, 3], 6: [4], 7: [4, 3], 8: [4]}),
])
def test_programs_that_jax_writes(name, kind, opcodes, edges, shapes):
  raw = reading.read_raw(FIXTURES / name)
  assert raw.kind == kind
  [module] = raw.modules
  instructions = [i for c in module.module.computations for i in c.instructions]
  assert min(i.id for i in instructions) > 2**32  # The computation's id is in the high bits.
  assert [i.opcode for i in instructions] == opcodes
  arrays = graph.graph_arrays(module.module)
  np.testing.assert_array_equal(arrays["edge_index"], edges)
  assert not graph.unknown_opcodes(module.module)
  feat = arrays["node_feat"]
  for node, row in enumerate(feat):
    shape = shapes.get(node, [])
    np.testing.assert_array_equal(row[21:27], shape + [0] * (6 - len(shape)))
    assert row[13] == 1  # f32
    layout = list(range(len(shape)))[::-1]
    np.testing.assert_array_equal(row[134:140], layout + [0] * (6 - len(shape)))
  reduce = feat[opcodes.index("reduce")]
  assert reduce[31] == 1 and feat[1, 30] == 1  # the reduced axis; the second parameter


@testdata.required
@pytest.mark.parametrize("name,kind", [
    ("op_tuning_data.pb", "TuningData"), ("module_tuning_data_layout.pb", "ModuleTuningData")])
def test_real_files_and_their_cuts(name, kind):
  data = (testdata.path("tpu_raw") / name).read_bytes()
  assert reading.parse_raw(data).kind == kind
  for size in np.random.default_rng(0).integers(1, len(data), 20).tolist():
    try:
      raw = reading.parse_raw(data[:size])
    except errors.DataError:
      continue
    assert raw.kind == kind  # Cut between two entries: never taken for another message.
