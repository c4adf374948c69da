"""Descriptions as text."""

import numpy as np
import pytest

from tests import synthetic
from tests.data import changed
from tpugraphs_rank.data import describe
from tpugraphs_rank.data import describe_tables
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry


@pytest.mark.parametrize("nanoseconds, shown", [
    (7, "7 ns"), (999, "999 ns"), (1000, "1 µs"), (41_720, "41.7 µs"), (2.5e6, "2.5 ms"),
    (3.2e9, "3.2 s"), (123e9, "123 s")])
def test_durations(nanoseconds, shown):
  assert describe_tables.duration(nanoseconds) == shown


@pytest.mark.parametrize("number, shown", [
    (0, "0 B"), (999, "999 B"), (31_900, "31.9 kB"), (5e6, "5 MB"), (1.7359e9, "1.74 GB")])
def test_sizes(number, shown):
  assert describe_tables.size(number) == shown


@pytest.fixture
def folder(tmp_path):
  """Two splits, the second damaged and without runtimes."""
  one = synthetic.layout_graph(0, name="one", num_nodes=8, num_configs=3, node_opcode=np.full(8, 2),
                               config_runtime=np.array([2000, 1000, 3000]))
  two = changed.with_configs(synthetic.layout_graph(1, name="two", num_nodes=20), [0] * 4 + [1])
  two = graphs.graph_from_arrays("two", dict(
      two.arrays(), config_runtime=np.array([90, 110, 90, 110, 5000]) * 1000,
      edge_index=one.edge_index, node_opcode=np.full(20, 34)))
  npz.save_graph(tmp_path / "train" / "one.npz", one)
  npz.save_graph(tmp_path / "train" / "two.npz", two)
  npz.save_graph(tmp_path / "test" / "three.npz", graphs.graph_from_arrays("three", dict(
      one.arrays(), config_runtime=np.zeros(3), node_opcode=np.full(8, 63))))
  npz.save_graph(tmp_path / "test" / "twin.npz", one)
  (tmp_path / "test" / "worse.npz").write_bytes(b"damaged")
  return tmp_path


def _text(folder):
  return describe_tables.text(describe.describe(registry.Collection(
      name="layout:made:x", kind="layout", target="chip", folder=folder,
      splits={"train": 2, "test": 4}), list_size=4))


def test_the_table(folder):
  lines = _text(folder).splitlines()
  assert lines[0] == f"layout:made:x (layout, chip) in {folder}"
  assert lines[2].split() == ["train", "test"]
  end = lines.index("", 2)
  width = len("fewer than 5 configurations")
  rows = {line[:width].strip(): [cell.strip() for cell in line[width:].split("  ") if cell.strip()]
          for line in lines[3:end]}
  edges = len(synthetic.layout_graph(0, num_nodes=8).edge_index)
  sizes = [(folder / split / f"{name}.npz").stat().st_size for split, name in (
      ("train", "one"), ("train", "two"), ("test", "three"), ("test", "twin"))]
  assert rows.pop("on disk") == [describe_tables.size(sum(sizes[:2])),
                                 describe_tables.size(sum(sizes[2:]))]
  assert len(rows.pop("unpacked")) == len(rows.pop("largest graph unpacked")) == 2
  assert rows == {
      "graph files": ["2 of 2", "3 of 4"],
      "damaged": ["-", "1"],
      "nodes": ["8 / 14 / 20; 28", "8 each; 16"],
      "edges": [f"{edges} each; {2 * edges}"] * 2,
      "configurations": ["3 / 4 / 5; 8", "3 each; 6"],
      "distinct configurations": ["2 / 2.5 / 3; 5", "3 each; 6"],
      "configurable nodes": ["3 each; 6", "3 each; 6"],
      "runtimes": ["1 µs to 5 ms", "1 µs to 3 µs in 1 of 2 graphs"],
      "slowest / fastest": ["3 / 29.3 / 55.6", "3 each"],
      "repeated configurations": ["3 in 1 graph", "-"],
      "most frequent configuration": ["4 times", "-"],
      # Deviations of a tenth each, 3 degrees of freedom.
      "relative sd of repeats": [f"{100 * np.sqrt(4 * 0.1 ** 2 / 3):.2g} %", "-"],
      # The sizes of a submission and of a list.
      "fewer than 5 configurations": ["1 graph", "2 graphs"],
      "fewer than 4 configurations": ["1 graph", "2 graphs"],
      "nodes without an edge": ["12 in 1 graph", "-"],
      "feature padding declared": ["0", "0"],
      "feature padding observed": ["0", "0"],
      "distinct structures": ["2", "2"],
  }


def test_the_text_below_the_table(folder):
  text = _text(folder)
  assert "node_opcode uint8" in text and "node_config_feat float32" in text
  assert ("structural twins (equal opcodes and edges) of graphs in train: 1 graph of test, 1 of "
          "them with equal node features; for example, twin is a twin of one\n") in text
  assert "Opcodes of test that do not occur in train: parameter (8 nodes)\n" in text
  rows = [line.split() for line in text.splitlines() if line.endswith("%")]
  assert rows[-3:] == [  # Of 20 + 8 + 8 + 8 nodes.
      ["dot", "20", "45.5", "%"], ["add", "16", "36.4", "%"], ["parameter", "8", "18.2", "%"]]
  assert text.splitlines()[-1].startswith(f"damaged: {folder / 'test' / 'worse.npz'} ")


def test_many_opcodes_are_summed_up(tmp_path):
  npz.save_graph(tmp_path / "train" / "a.npz", synthetic.tile_graph(
      0, num_nodes=13, node_opcode=np.arange(1, 14)))
  text = describe_tables.text(describe.describe(registry.Collection(
      name="tile:made", kind="tile", target="chip", folder=tmp_path, splits={"train": 1})))
  assert "opcode (13)" in text
  (others,) = (line.split() for line in text.splitlines() if " others " in line)
  assert others == ["3", "others", "3", f"{100 * 3 / 13:.3g}", "%"]


def test_an_empty_collection_is_a_short_table(tmp_path):
  empty = registry.Collection(
      name="tile:none", kind="tile", target="t", splits={"train": 0}, folder=tmp_path)
  assert describe_tables.text(describe.describe(empty)) == (
      f"tile:none (tile, t) in {tmp_path}\n\n"
      "                         train\n"
      "graph files             0 of 0\n"
      "on disk                    0 B\n"
      "unpacked                   0 B\n"
      "largest graph unpacked     0 B\n\n"
      "Ranges are minimum / median / maximum over graphs, followed by the total.\n")
