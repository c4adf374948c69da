"""Our `.proto` files against XLA's descriptors, and the generated classes against the `.proto`s."""

import importlib
import pathlib
import re
import subprocess
import sys

from google.protobuf import descriptor
from google.protobuf import descriptor_pb2
import pytest

from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import regenerate
from tpugraphs_rank.hlo import tuning_pb2

FOLDER = pathlib.Path(hlo_pb2.__file__).parent
ROOT = FOLDER.parents[1]
TYPES = {
    getattr(descriptor.FieldDescriptor, name): name[len("TYPE_"):].lower()
    for name in dir(descriptor.FieldDescriptor) if name.startswith("TYPE_")}
# The public tuning schema: message -> {field: (number, type, repeated)}; there is no public
# Python package to compare with, so it is written out.
TUNING = {
    "TuningData": {"modules": (1, "ModuleTuningData", True)},
    "ModuleTuningData": {
        "module": (1, "HloModuleProto", False), "fingerprint": (2, "uint64", False),
        "runs": (3, "ConfigProfile", True), "config_index_to_node": (4, "uint64", True)},
    "ConfigProfile": {
        "op_config": (1, "HloOpConfig", False), "module_config": (2, "HloModuleConfig", False),
        "error": (3, "bool", False), "profile": (4, "ExecutionProfile", False),
        "is_default": (5, "bool", False)},
    "HloOpConfig": {"tile_size_config": (1, "TileSizeConfig", False)},
    "TileSizeConfig": {
        "kernel_bounds": (1, "int64", True), "output_bounds": (2, "int64", True),
        "input_bounds": (3, "int64", True), "iteration_bounds": (4, "int64", True)},
    "HloModuleConfig": {"layout_config": (1, "LayoutConfig", False)},
    "LayoutConfig": {"nodes": (1, "NodeLayoutConfig", True)},
    "NodeLayoutConfig": {"tensors": (1, "TensorLayoutConfig", True)},
    "TensorLayoutConfig": {"dims": (1, "int32", True)},
}

# Newer than TensorFlow 2.15; the numbers are those of the XLA of JAX 0.10, but for
# `iota_replica_group_list`, which that XLA has reserved.
NEWER_MESSAGES = {
    "IotaReplicaGroupListProto": {
        "num_replica_groups": (1, "int64", False), "num_devices_per_group": (2, "int64", False),
        "iota_reshape_dims": (3, "int64", True), "iota_transpose_perm": (4, "int32", True)},
    "CollectiveDeviceListProto": {
        "replica_groups": (1, "ReplicaGroup", True),
        "iota_replica_group_list": (2, "IotaReplicaGroupListProto", False)},
    "MeshAxis": {"name": (1, "string", False), "size": (2, "int64", False)},
    "IotaTransform": {"reshape_dims": (1, "int64", True), "transpose_perm": (2, "int64", True)},
    "MeshProto": {
        "axes": (1, "MeshAxis", True), "device_ids": (2, "int64", True),
        "iota_transform": (3, "IotaTransform", False)},
    "SubAxis": {"pre_size": (1, "int64", False), "size": (2, "int64", False)},
    "AxisRefProto": {
        "mesh_axis_index": (1, "int64", False), "sub_axis_info": (2, "SubAxis", False)},
    "MeshAxesReplicaGroupListProto": {
        "mesh": (1, "MeshProto", False), "axes": (2, "AxisRefProto", True)}}
NEWER_FIELDS = {
    "collective_device_list": (87, "CollectiveDeviceListProto", False),
    "iota_collective_device_list": (92, "IotaReplicaGroupListProto", False),
    "mesh_axes_replica_group_list": (93, "MeshAxesReplicaGroupListProto", False)}


def _messages(file) -> dict:
  """Every message of a file descriptor, nested ones too, by its bare name."""
  actual, queue = {}, list(file.message_types_by_name.values())
  while queue:
    message = queue.pop()
    actual[message.name] = message
    queue.extend(message.nested_types)
  return actual


def _fields(message) -> dict:
  """{field: (number, type or message name, repeated)}"""
  return {
      field.name: (
          field.number,
          field.message_type.name if field.message_type else
          field.enum_type.name if field.enum_type else TYPES[field.type],
          field.label == descriptor.FieldDescriptor.LABEL_REPEATED)
      for field in message.fields}


def test_hlo_fields_are_those_of_xla():
  pytest.importorskip("tensorflow")
  theirs = {}
  for module in ("tensorflow.compiler.xla.service.hlo_pb2", "tensorflow.compiler.xla.xla_data_pb2"):
    theirs.update(_messages(importlib.import_module(module).DESCRIPTOR))
  ours = _messages(hlo_pb2.DESCRIPTOR)
  assert "HloInstructionProto" in ours and len(ours) > 10
  for name, message in ours.items():
    public = NEWER_MESSAGES.get(name) or _fields(theirs[name])
    newer = NEWER_FIELDS if name == "HloInstructionProto" else {}
    for field, (number, kind, *rest) in _fields(message).items():
      expected = tuple(part for part in (newer.get(field) or public[field]))
      assert (number, kind, rest[-1]) == (*expected[:2], expected[-1]), f"{name}.{field}"


def test_element_types_are_those_of_xla():
  pytest.importorskip("tensorflow")
  xla_data = importlib.import_module("tensorflow.compiler.xla.xla_data_pb2")
  ours = dict(hlo_pb2.PrimitiveType.items())
  assert ours.items() >= dict(xla_data.PrimitiveType.items()).items()
  # Newer than TensorFlow 2.15; the numbers are those of xla_data.proto in the XLA of JAX 0.10.
  assert {name: number for name, number in ours.items() if number > 25} == {
      "S2": 26, "U2": 27, "F8E4M3": 28, "F8E3M4": 29, "S1": 30, "U1": 31, "F4E2M1FN": 32,
      "F8E8M0FNU": 33, "BUFFER": 34}


def test_tuning_fields_are_the_public_ones():
  assert {name: _fields(m) for name, m in _messages(tuning_pb2.DESCRIPTOR).items()} == TUNING
  config = tuning_pb2.ConfigProfile.DESCRIPTOR.oneofs_by_name["config"]
  assert [field.name for field in config.fields] == ["op_config", "module_config"]


@pytest.mark.parametrize("module", [hlo_pb2, tuning_pb2], ids=["hlo", "tuning"])
def test_generated_classes_hold_what_the_proto_file_lists(module):
  text = (FOLDER / module.DESCRIPTOR.name.rpartition("/")[2]).read_text(encoding="utf-8")
  text = re.sub(r"//[^\n]*", "", text)
  listed = sorted(re.findall(r"(\w+) = (\d+);", text))
  file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
  generated = [(value.name, str(value.number)) for enum in file.enum_type for value in enum.value]
  for message in _messages(module.DESCRIPTOR).values():
    generated += [(field.name, str(field.number)) for field in message.fields]
  assert sorted(generated) == listed
  assert sorted(re.findall(r"message (\w+)", text)) == sorted(_messages(module.DESCRIPTOR))


def test_regenerating_changes_nothing(tmp_path):
  pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed (regenerate.py says how)")
  regenerate.regenerate(tmp_path)
  for name in ("hlo_pb2.py", "hlo_pb2.pyi", "tuning_pb2.py", "tuning_pb2.pyi"):
    generated = tmp_path / "tpugraphs_rank" / "hlo" / name
    assert generated.read_bytes() == (FOLDER / name).read_bytes()


def test_unknown_fields_survive():
  instruction = hlo_pb2.HloInstructionProto(name="x", id=3)
  # Field 43 (backend_config, bytes), which we do not declare: tag 0xda 0x02, length 2, "hi".
  data = instruction.SerializeToString() + b"\xda\x02\x02hi"
  assert b"\xda\x02\x02hi" in hlo_pb2.HloInstructionProto.FromString(data).SerializeToString()


def test_hlo_needs_neither_tensorflow_nor_jax():
  code = (
      "import sys, importlib, pkgutil, tpugraphs_rank.hlo as p\n"
      "names = [m.name for m in pkgutil.iter_modules(p.__path__)]\n"
      "[importlib.import_module('tpugraphs_rank.hlo.' + n) for n in names]\n"
      "bad = {'tensorflow', 'jax', 'jaxlib', 'grpc_tools', 'absl'} & set(sys.modules)\n"
      "assert not bad, bad\n")
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
