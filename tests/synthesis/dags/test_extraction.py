"""Extraction of DAGs from the programs of a collection, and of operand cones."""

import json

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import synthetic
from tests.data import drawn
from tpugraphs_rank import errors
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.synthesis.dags import extraction


@pytest.fixture
def kernels(tmp_path):
  return synthetic.write_collection(tmp_path / "kernels", counts=(4, 2, 1))


@pytest.fixture
def programs(tmp_path):
  return synthetic.write_collection(tmp_path / "programs", "layout", counts=(3, 1, 1),
                                    num_nodes=40)


def _values(dags, graph):
  return [words[column] for words, column in
          zip(dags.vocabularies, dags.x[dags.nodes(graph)].T)]


def test_whole_kernels_with_their_mean_normalized_runtime(kernels):
  extracted = extraction.extract(str(kernels), attributes=extraction.ATTRIBUTES)
  dags = extracted.dags
  assert (len(dags), extracted.programs, extracted.left_out) == (7, 7, 0)
  assert dags.x_names == ("opcode", "element_type", "shape_bucket")
  sources = [graph for split in ("train", "valid", "test")
             for graph in collections.load_collection(str(kernels), split)]
  for place, graph in enumerate(sources):
    expected = np.mean(graph.config_runtime / graph.config_runtime_normalizers)
    np.testing.assert_allclose(dags.label()[place], expected, rtol=1e-12)
    opcode, element_type, bucket = _values(dags, place)
    assert sorted(opcode.tolist()) == sorted(graph.node_opcode.tolist())
    # The synthetic graphs have no element type.
    assert set(element_type.tolist()) == {"other"}
    elements = graph.node_feat[:, 21:27].astype(np.int64).prod(axis=1)
    assert sorted(bucket.tolist()) == sorted(int(n).bit_length() - 1 for n in elements)
    assert len(dags.edges(place)) == len(np.unique(graph.edge_index, axis=0))
  assert dags.provenance["label"] == "mean over configurations of runtime / normalizer"
  assert dags.provenance["collection"] == "tile:synthetic"


def test_element_types_and_empty_outputs(tmp_path):
  graph = synthetic.tile_graph(0, num_nodes=4)
  feat = graph.node_feat.copy()
  feat[:, 2:21] = 0
  feat[[0, 1, 2], [2 + 11, 2 + 13, 2 + 1]] = 1
  feat[:, 28] = [0, 1, 2**24 - 1, 2**24]
  folder = tmp_path / "data"
  npz.save_graph(folder / "npz" / "train" / "a.npz", synthetic.tile_graph(0, 4, node_feat=feat))
  (folder / "collection.json").write_text(json.dumps(
      {"name": "tile:a", "kind": "tile", "target": "none", "path": "npz", "splits": {"train": 1}}))
  dags = extraction.extract(str(folder / "collection.json"),
                                  attributes=["element_type", "shape_bucket"]).dags
  assert sorted(zip(*(column.tolist() for column in _values(dags, 0)))) == sorted(
      [("f32", -1), ("bf16", 0), ("pred", 23), ("other", 24)])


def test_splits_and_layouts_in_seconds(programs):
  extracted = extraction.extract(str(programs), ["valid"])
  graph, = collections.load_collection(str(programs), "valid")
  np.testing.assert_allclose(extracted.dags.label(), [graph.config_runtime.mean() * 1e-9])
  with pytest.raises(errors.UnknownNameError, match="has no split 'vald'"):
    extraction.extract(str(programs), ["vald"])


def test_larger_programs_are_skipped(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(1, 1, 1), num_nodes=5)
  large = synthetic.tile_graph(9, num_nodes=30, name="family0.0")
  npz.save_graph(tmp_path / "npz" / "train" / "family0.0.npz", large)
  extracted = extraction.extract(str(path), max_nodes=10)
  assert extracted.dags.sizes.tolist() == [5, 5] and extracted.left_out == 1
  assert extracted.dags.provenance["programs_left_out"] == 1
  with pytest.raises(errors.DataError, match="none of 3 programs has at most 4 nodes; raise"):
    extraction.extract(str(path), max_nodes=4)


def test_sub_graphs_are_seeded_and_have_no_label(programs):
  extract = lambda seed: extraction.extract(
      str(programs), max_nodes=12, subgraphs=4, seed=seed).dags
  dags = extract(3)
  assert len(dags) == 20 and dags.y_names == () and dags.provenance["label"] is None
  assert 3 <= dags.sizes.min() and dags.sizes.max() <= 12
  # Each has one root, so it is connected.
  np.testing.assert_array_equal(np.bincount(dags.graph_of_node[dags.level == 0]), np.ones(20))
  assert extract(3).wl.tolist() == dags.wl.tolist() != extract(4).wl.tolist()


@given(drawn.dags(), st.integers(1, 8), st.data())
def test_operand_cones(graph, max_nodes, data):
  edges, count = graph
  root = data.draw(st.integers(0, count - 1))
  nodes, inner = extraction.operand_cone(edges, count, root, max_nodes)
  assert nodes[0] == root and len(set(nodes.tolist())) == len(nodes) <= max_nodes
  known = {tuple(edge) for edge in edges.tolist()}
  kept = {(int(nodes[u]), int(nodes[v])) for u, v in inner}
  assert kept <= known
  for node in nodes.tolist():
    operands = {v for u, v in known if u == node}
    assert {v for u, v in kept if u == node} in (operands, set())
  # Every node except the root is consumed by an earlier one.
  assert {v for _, v in kept} == set(nodes[1:].tolist())
  whole = {root}
  while True:
    more = whole | {v for u, v in known if u in whole}
    if more == whole:
      break
    whole = more
  if len(whole) <= max_nodes:
    assert set(nodes.tolist()) == whole and kept == {edge for edge in known if edge[0] in whole}


def test_wrong_arguments(kernels):
  with pytest.raises(errors.UnknownNameError, match="no attribute 'opcodes' .did you mean 'opc"):
    extraction.extract(str(kernels), attributes=["opcodes"])
  with pytest.raises(errors.UnknownNameError, match="no collection 'tile:xls'"):
    extraction.extract("tile:xls")
  with pytest.raises(errors.ConfigError, match="sub-graphs need a largest number of nodes"):
    extraction.extract(str(kernels), subgraphs=2)


def test_measured_and_unmeasured_graphs_do_not_mix(kernels):
  described = json.loads(kernels.read_text())
  described["has_runtimes"]["test"] = False
  kernels.write_text(json.dumps(described))
  path, = (kernels.parent / "npz" / "test").glob("*.npz")
  zeros = np.zeros(12, np.int64)
  npz.save_graph(path, synthetic.tile_graph(6, name=path.stem, config_runtime=zeros))
  assert len(extraction.extract(str(kernels)).dags) == 6
  unlabelled = extraction.extract(str(kernels), ["test"]).dags
  assert len(unlabelled) == 1 and unlabelled.y_names == ()
  with pytest.raises(errors.DataError, match=f"graph {path.stem} has no runtimes and others have"):
    extraction.extract(str(kernels), ["train", "test"])


def test_the_error_of_a_cycle_names_the_program(kernels):
  path = sorted((kernels.parent / "npz" / "train").glob("*.npz"))[1]
  edges = np.array([[1, 2], [2, 3], [3, 1]])
  npz.save_graph(path, synthetic.tile_graph(1, name=path.stem, edge_index=edges))
  with pytest.raises(errors.DataError, match=f"graph {path.stem}: node 1 is on or behind a cycle"):
    extraction.extract(str(kernels))
