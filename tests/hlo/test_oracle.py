"""The featurizer, compared with `oracle.py` on the real files and on random programs."""

import csv
import importlib

from hypothesis import given
from hypothesis import settings
import numpy as np
import pytest

from tests import testdata
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.hlo import reading

from . import modules
from . import oracle

TILE = "tpu_raw/op_tuning_data.pb"
LAYOUT = "tpu_raw/module_tuning_data_layout.pb"


@pytest.fixture(scope="module", name="xla")
def _xla():
  """TensorFlow's (hlo_pb2, xla_data_pb2)."""
  pytest.importorskip("tensorflow")
  return (importlib.import_module("tensorflow.compiler.xla.service.hlo_pb2"),
          importlib.import_module("tensorflow.compiler.xla.xla_data_pb2"))


def assert_same(ours, expected):
  assert ours.keys() == expected.keys()
  for key, array in expected.items():
    assert ours[key].dtype == array.dtype, key
    assert ours[key].shape == array.shape, key
    if key == "node_feat":
      for column in range(array.shape[1]):
        np.testing.assert_array_equal(ours[key][:, column], array[:, column], f"column {column}")
    np.testing.assert_array_equal(ours[key], array, key)


def _oracle_graph(module, xla, padding):
  hlo_pb2, xla_data_pb2 = xla
  theirs = hlo_pb2.HloModuleProto.FromString(module.SerializeToString())
  return oracle.graph(theirs, xla_data_pb2, opcodes.OPCODE_IDS, padding)


@testdata.required
def test_opcode_table():
  with open(testdata.path("hlo_opcodes.csv"), encoding="utf-8") as file:
    table = {row["opcode"]: int(row["id"]) for row in csv.DictReader(file)}
  assert opcodes.OPCODE_IDS == table


@testdata.required
@pytest.mark.parametrize("padding", [0, -1])
def test_real_kernels(xla, padding):
  path = testdata.path(TILE)
  converted = convert.convert_file(path, padding)
  raw = reading.read_raw(path).modules
  assert len(converted.graphs) == len(raw) == 15 and not converted.skipped
  assert sum(g.runs for g in converted.graphs) == 754
  assert sum(g.valid_runs for g in converted.graphs) == 752
  for ours, module in zip(converted.graphs, raw):
    expected = {**_oracle_graph(module.module, xla, padding), **oracle.tile(module)}
    del expected["node_splits"]
    assert (ours.name, ours.kind) == (module.module.name, "tile")
    assert_same(ours.arrays, expected)


@testdata.required
@pytest.mark.parametrize("padding", [0, -1])
def test_real_program(xla, padding):
  path = testdata.path(LAYOUT)
  converted = convert.convert_file(path, padding)
  [module] = reading.read_raw(path).modules
  [ours] = converted.graphs
  assert (ours.name, ours.kind) == ("module_tuning_data_layout", "layout")
  assert (ours.runs, ours.valid_runs) == (122, 112)
  assert_same(ours.arrays, {**_oracle_graph(module.module, xla, padding), **oracle.layout(module)})
  assert len(ours.arrays["node_opcode"]) == 3163 and len(module.module.computations) == 143
  names = [opcodes.opcode_name(ours.arrays["node_opcode"][i]) for i in
           ours.arrays["node_config_ids"]]
  assert len(names) == 62
  assert (names.count("convolution"), names.count("reshape")) == (53, 9)


@settings(max_examples=25, deadline=None)
@given(module=modules.programs())
def test_random_programs(xla, module):
  for padding in (0, -1):
    assert_same(graph.graph_arrays(module, padding), _oracle_graph(module, xla, padding))
